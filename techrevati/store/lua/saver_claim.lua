-- saver_claim: reserve an idempotency key, unless it is done or held by another owner.
-- Twin: techrevati.store.twin.savers.saver_claim
-- include: _clock _saver
--
-- KEYS[1]  head       the thread's checkpoints
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  key
-- ARGV[4]  owner
-- ARGV[5]  lease      us
-- ARGV[6]  ttl        ms the thread is kept without use; 0 for ever
-- returns  {1, _, token}, {2, _, us it is held for at most}, {3, _, number, ...} it is done, as `saver_get` tells it
local key, owner = ARGV[3], ARGV[4]
local refused = only_reads(ARGV[1])
if refused then return refused end
local number = tonumber(call('ZSCORE', KEYED, key) or nil)
local found = number and chain(number)
if found then return tell({ 3, {}, f0(number), #found }, found) end
refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local _, expires, holder = string.match(call('HGET', CLAIMS, key) or '', '^(%d+):(%d+):(.*)$')
if holder and holder ~= owner and tonumber(expires) > NOW then return { 2, {}, f0(tonumber(expires) - NOW) } end
local head = call('HMGET', HEAD, 'token', 'fresh')
local token = f0(max(num(head[1]) + 1, floor(NOW / 1000)))
call('HSET', HEAD, 'token', token)
call('HSET', CLAIMS, key, token .. ':' .. f0(NOW + tonumber(ARGV[5])) .. ':' .. owner)
if ARGV[6] ~= '0' then call('PEXPIRE', CLAIMS, ARGV[6]) end
keep_alive(ARGV[6], head[2])
return { 1, {}, token }
