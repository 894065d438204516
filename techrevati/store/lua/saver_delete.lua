-- saver_delete: forget a thread's checkpoints; numbers and tokens go on from where they were.
-- Twin: techrevati.store.twin.savers.saver_delete
-- include: _clock _saver
--
-- KEYS[1]  head       the thread's checkpoints
-- ARGV[1]  protocol
-- ARGV[2]  now        not used
-- ARGV[3]  ttl        ms until the rest is forgotten, too
-- returns  {1, _} gone, {0, _} there was nothing
local refused = only_reads(ARGV[1])
if refused then return refused end
if call('EXISTS', HEAD) == 0 then return { 0, {} } end
call('UNLINK', REC, IDS, KEYED, CLAIMS)
call('HSET', HEAD, 'id', '', 'first', f0(num(call('HGET', HEAD, 'n')) + 1), 'fresh', '0')
call('PEXPIRE', HEAD, ARGV[3])
return { 1, {} }
