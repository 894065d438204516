-- saver_put: append a checkpoint; with a token, only for who holds the claim of its key.
-- Twin: techrevati.store.twin.savers.saver_put
-- include: _clock _saver
--
-- KEYS[1]  head       the thread's checkpoints
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  id         sent again, it changes nothing
-- ARGV[4]  after      id of the checkpoint that the record builds on; '' for a whole one
-- ARGV[5]  record
-- ARGV[6]  key        idempotency key, or ''
-- ARGV[7]  token      of the claim of that key, or '' to put without one
-- ARGV[8]  ttl        ms the thread is kept without use; 0 for ever
-- ARGV[9]  keep       checkpoints to keep; 0 all.  Older ones go when a whole one is put
-- returns  {1, _, number}, {0, _, number} it was there, {-30} `after` is not the last: put a whole one,
--          {-31, _, current token or 0}
local refused = only_reads(ARGV[1])
if refused then return refused end
local id, after, record, key, token, ttl, keep = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])
local known = call('ZSCORE', IDS, id)
if known then
  enter(ARGV[1], ARGV[2])
  call('HSET', HEAD, 'us', NOWS)                     -- a WAIT behind this has to have something to wait for
  return { 0, {}, f0(tonumber(known)) }
end
local head = call('HMGET', HEAD, 'n', 'id', 'first', 'fresh')
if token ~= '' then
  local held = string.match(call('HGET', CLAIMS, key) or '', '^%d+')
  if held ~= token then return { -31, {}, held or '0' } end
end
if after ~= '' and after ~= head[2] then return { -30, {} } end
enter(ARGV[1], ARGV[2])
local n = num(head[1]) + 1
local number = f0(n)
call('HSET', REC, number, record)
call('ZADD', IDS, number, id)
call('HSET', HEAD, 'n', number, 'id', id)
if key ~= '' then
  call('ZADD', KEYED, number, key)
  if token ~= '' then call('HDEL', CLAIMS, key) end
  if ttl ~= '0' then call('PEXPIRE', KEYED, ttl) end
end
keep_alive(ttl, head[4])
if keep > 0 and after == '' then
  local first, oldest = num(head[3] or '1'), n - keep + 1
  local needed = oldest > first and base_of(call('HGET', REC, f0(oldest)) or '', oldest) or first
  if needed > first + 256 then                       -- the rest another time; never into the middle of a chain
    needed = base_of(call('HGET', REC, f0(first + 256)) or '', first + 256)
  end
  if needed > first then
    local gone = {}
    for i = first, needed - 1 do gone[#gone + 1] = f0(i) end
    call('HDEL', REC, unpack(gone))
    call('ZREMRANGEBYSCORE', IDS, '-inf', f0(needed - 1))
    call('ZREMRANGEBYSCORE', KEYED, '-inf', f0(needed - 1))
    call('HSET', HEAD, 'first', f0(needed))
  end
end
return { 1, {}, number }
