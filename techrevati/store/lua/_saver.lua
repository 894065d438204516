-- Checkpoints of one thread, numbered without gaps; a record stands for a whole state or builds on those before it.
-- Twin: techrevati.store.twin.savers
--
-- KEYS[1]    "saver:{fleet:tenant:thread}"  hash: us, min, n (last number), id (the last one's), first, fresh, token;
--            <number> -> "F:<id> <size>" whole, or "D<base>:<id> <size>" changes since the one before, whole at `base`;
--            i<id> -> number; b<id> -> body, written and read past Lua where it is big.  One hash: one expiry
-- ..:keys    sorted set: idempotency key by number of the newest with that key
-- ..:claims  hash: key -> "token:expires:owner"
local HEAD = KEYS[1]
local KEYED, CLAIMS = HEAD .. ':keys', HEAD .. ':claims'

-- What only reads does not touch the clock: it has no use for the time, and writes nothing.
local function only_reads(proto)
  local least = call('HGET', HEAD, 'min')
  if least and tonumber(proto) < tonumber(least) then return { -10, {}, least } end
end

local function base_of(record, number)
  return tonumber(string.match(record, '^D(%d+):') or number)
end

-- A record and all it builds on, oldest first.
local function chain(number)
  local record = call('HGET', HEAD, f0(number))
  if not record then return nil end
  local names, found = {}, {}
  for i = base_of(record, number), number - 1 do names[#names + 1] = f0(i) end
  if names[1] then found = call('HMGET', HEAD, unpack(names)) end
  found[#found + 1] = record
  return found
end

-- What is told of records: how many, the records, and their bodies if these are small together.
local SMALL = 32768
local function tell(reply, records)
  local size, names = 0, {}
  for i, record in ipairs(records) do
    local id, bytes = string.match(record or '', ':(%S*) (%d+)$')
    size, names[i] = size + num(bytes), 'b' .. (id or '')
    reply[#reply + 1] = record
  end
  if size <= SMALL then
    for _, body in ipairs(call('HMGET', HEAD, unpack(names))) do reply[#reply + 1] = body end
  end
  return reply
end

-- Keep the thread's keys for `ttl` ms from now; told anew when a tenth of it has gone by.
local function keep_alive(ttl, fresh)
  if ttl == '0' then
    if fresh == '0' then call('PERSIST', HEAD) end   -- it was deleted, and is used again
    return
  end
  if NOW < num(fresh) then return end
  for _, key in ipairs({ HEAD, KEYED, CLAIMS }) do call('PEXPIRE', key, ttl) end
  call('HSET', HEAD, 'fresh', f0(NOW + tonumber(ttl) * 100))
end
