-- saver_put: append a checkpoint; with a token, only for who holds the claim of its key.
-- Twin: techrevati.store.twin.savers.saver_put
-- include: _clock _saver
--
-- KEYS[1]  head       the thread's checkpoints
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  id         sent again, it changes nothing
-- ARGV[4]  after      id of the checkpoint that the record builds on; '' for a whole one
-- ARGV[5]  record     without its body
-- ARGV[6]  key        idempotency key, or ''
-- ARGV[7]  token      of the claim of that key, or '' to put without one
-- ARGV[8]  ttl        ms the thread is kept without use; 0 for ever
-- ARGV[9]  keep       checkpoints to keep; 0 all.  Older ones go when a whole one is put
-- ARGV[10] body       if it is small; else '': it stands in b<id> already, by the same transaction
-- returns  {1, _, number}, {0, _, number} it was there, {-30} `after` is not the last: put a whole one,
--          {-31, _, current token or 0}
local id, after, record, key, token, ttl, keep = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])
local body = ARGV[10]
local head = call('HMGET', HEAD, 'us', 'min', 'n', 'id', 'first', 'fresh')
local function refuse(reply)
  if body == '' then call('HDEL', HEAD, 'b' .. id) end
  return reply
end
if head[2] and tonumber(ARGV[1]) < tonumber(head[2]) then return refuse({ -10, {}, head[2] }) end
-- What builds on the last one cannot be there yet: only others have to be looked for.
local known = after ~= head[4] and call('HGET', HEAD, 'i' .. id)
if known then
  tick(ARGV[2], num(head[1]))
  call('HSET', HEAD, 'us', NOWS)                     -- a WAIT behind this has to have something to wait for
  return { 0, {}, known }
end
if token ~= '' then
  local held = string.match(call('HGET', CLAIMS, key) or '', '^%d+')
  if held ~= token then return refuse({ -31, {}, held or '0' }) end
end
if after ~= '' and after ~= head[4] then return refuse({ -30, {} }) end
tick(ARGV[2], num(head[1]))
local n = num(head[3]) + 1
local number = f0(n)
if body == '' then call('HSET', HEAD, number, record, 'i' .. id, number, 'n', number, 'id', id, 'us', NOWS)
else call('HSET', HEAD, number, record, 'i' .. id, number, 'n', number, 'id', id, 'us', NOWS, 'b' .. id, body) end
if key ~= '' then
  call('ZADD', KEYED, number, key)
  if token ~= '' then call('HDEL', CLAIMS, key) end
  if ttl ~= '0' then call('PEXPIRE', KEYED, ttl) end
end
keep_alive(ttl, head[6])
if keep > 0 and after == '' then
  local first, oldest = num(head[5] or '1'), n - keep + 1
  local needed = oldest > first and base_of(call('HGET', HEAD, f0(oldest)) or '', oldest) or first
  if needed > first + 64 then                       -- the rest another time; never into the middle of a chain
    needed = base_of(call('HGET', HEAD, f0(first + 64)) or '', first + 64)
  end
  if needed > first then
    local gone = {}
    for i = first, needed - 1 do gone[#gone + 1] = f0(i) end
    for _, old in ipairs(call('HMGET', HEAD, unpack(gone))) do
      local its = string.match(old or '', '^%a%d*:(%S*)') or ''
      gone[#gone + 1] = 'i' .. its
      gone[#gone + 1] = 'b' .. its
    end
    call('HDEL', HEAD, unpack(gone))
    call('ZREMRANGEBYSCORE', KEYED, '-inf', f0(needed - 1))
    call('HSET', HEAD, 'first', f0(needed))
  end
end
return { 1, {}, number }
