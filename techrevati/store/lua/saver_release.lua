-- saver_release: end a claim without a result.
-- Twin: techrevati.store.twin.savers.saver_release
-- include: _clock _saver
--
-- KEYS[1]  head       the thread's checkpoints
-- ARGV[1]  protocol
-- ARGV[2]  now        not used
-- ARGV[3]  key
-- ARGV[4]  token
-- returns  {1, _} released, {0, _} the token is not the current one
local refused = only_reads(ARGV[1])
if refused then return refused end
if string.match(call('HGET', CLAIMS, ARGV[3]) or '', '^%d+') ~= ARGV[4] then return { 0, {} } end
call('HDEL', CLAIMS, ARGV[3])
return { 1, {} }
