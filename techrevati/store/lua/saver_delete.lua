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
local head = call('HMGET', HEAD, 'us', 'n', 'token', 'min')
call('UNLINK', HEAD, KEYED, CLAIMS)
call('HSET', HEAD, 'us', head[1] or '0', 'n', head[2] or '0', 'token', head[3] or '0', 'id', '', 'fresh', '0',
  'first', f0(num(head[2]) + 1))
if head[4] then call('HSET', HEAD, 'min', head[4]) end
call('PEXPIRE', HEAD, ARGV[3])
return { 1, {} }
