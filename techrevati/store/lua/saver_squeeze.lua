-- saver_squeeze: put smaller bytes in the place of a body: the same checkpoint, compressed.
-- Twin: techrevati.store.twin.savers.saver_squeeze
-- include: _clock _saver
--
-- KEYS[1]  head       the thread's checkpoints
-- ARGV[1]  protocol
-- ARGV[2]  now        not used
-- ARGV[3]  id
-- ARGV[4]  body
-- returns  {1, _} it is there, {0, _} the checkpoint is gone
local refused = only_reads(ARGV[1])
if refused then return refused end
if call('HEXISTS', HEAD, 'i' .. ARGV[3]) == 0 then return { 0, {} } end
call('HSET', HEAD, 'b' .. ARGV[3], ARGV[4])
return { 1, {} }
