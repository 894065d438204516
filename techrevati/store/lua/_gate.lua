-- Gate: one dependency.  Its hash is read with one HMGET and written with one HSET.
-- Twin: techrevati.store.twin.gate_state
--
-- KEYS[1]  "gate:{fleet/gate/name}"  hash: us, min, v (declaration), st, gen, until, fo, opens, f, run, pr, ok,
--          rf, pa, used, lim, halved, la, sa, sq, due, ln, nf; z:<bucket> (ns since the epoch when it was empty);
--          c:<call> "probe:slot:start:generation:end" or "-"; b:<booking>; x:<worker> out until; n:<lane> "number:end"; the declaration
-- ends     sorted set: fields of it that end by themselves;  line, tags: who waits without a promise;  slots: who waits
--          for a slot;
-- evid     hash: worker -> "failures run last";  news: channel;  news:...:<ear>: of a process that waits
local GATE = KEYS[1]
local TAG = string.sub(GATE, 6)
local ENDS, LINE, TAGS, SLOTS = 'ends:' .. TAG, 'line:' .. TAG, 'tags:' .. TAG, 'slots:' .. TAG
local call, max, min, ceil, floor = redis.call, math.max, math.min, math.ceil, math.floor
local byte, match, format = string.byte, string.match, string.format
local CLOSED, OPEN, HALF_OPEN, FORCED_OPEN = 0, 1, 2, 1
local SWEPT, SWEEP_EVERY, GRACE, KEEP = 128, 20000, 5000000, 10000000
local NOW, ZERO                                      -- us; ns since the gate's epoch
local G, Z = {}, {}                                  -- fields that scripts change; the buckets' levels
local W, WN = { 'us', '' }, 2                        -- what the one HSET will write

local function f0(n) return format('%d', n) end      -- a whole number; twice as fast as %.0f
local function fl(n) return format('%.17g', n) end
local function set(field, value)
  G[field] = value
  W[WN + 1], W[WN + 2], WN = field, f0(value), WN + 2
end
local function write(field, text) W[WN + 1], W[WN + 2], WN = field, text, WN + 2 end
local function flush()
  W[2] = f0(NOW)
  call('HSET', GATE, unpack(W))
end

-- Refuse an old caller and one that knows another declaration; read a clock that never falls.
local function enter(us, least, version, wanted, epoch)
  if least and tonumber(ARGV[1]) < tonumber(least) then return { -10, '', least } end
  if version ~= wanted then return { -12, '', version or '' } end
  if ARGV[2] ~= '' then NOW = tonumber(ARGV[2]) else
    local t = call('TIME')
    NOW = t[1] * 1000000 + t[2]
  end
  if us and tonumber(us) > NOW then NOW = tonumber(us) end
  ZERO = (NOW - tonumber(epoch)) * 1000
end

-- Buckets: a number each, the time it was or will be empty; never longer ago than it takes to fill.
local N, NAME, EACH, SPAN, AMOUNT = 0, {}, {}, {}, {}
local function buckets(first)
  for i = first, #ARGV, 5 do
    N = N + 1
    NAME[N], EACH[N], SPAN[N] = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
    AMOUNT[N] = tonumber(ARGV[i + 3])
  end
end
local function shift(i, at, amount)                  -- gives back no more than it can hold; takes into debt
  Z[i] = max(Z[i], at - SPAN[i]) - floor(amount * EACH[i])
end
local function start_of(costs, at)
  local start = at
  for i = 1, N do
    if costs[i] > 0 then start = max(start, max(Z[i], at - SPAN[i]) + ceil(costs[i] * EACH[i])) end
  end
  return start
end
local function spend(costs, at)
  for i = 1, N do
    if costs[i] > 0 then Z[i] = max(Z[i], at - SPAN[i]) + ceil(costs[i] * EACH[i]) end
  end
end

local function ends_at(name, at)
  call('ZADD', ENDS, f0(at), name)
  local due = G.due
  if due == 0 or at < due then set('due', at) end
end

-- Free what a call held: its slot, its probe permit if that is of this generation.
local function release(record)
  local probe, slot, at, generation = match(record, '(%d):(%d):(%d+):(%d+)')
  if slot == '1' then set('used', max(0, G.used - 1)) end
  if probe == '1' and tonumber(generation) == G.gen then set('pr', max(0, G.pr - 1)) end
  return tonumber(at)
end

-- Bookings: "f T a=1,b=2" promised; "l tag a=1" in line; "o T" behind a breaker; for a slot: "s T a=1 here rank lease
-- ear call" waits, "g T a=1 rank" has one kept until T, "w T a=1 rank" was not there when it was its turn.
local function costs_text(costs)
  local said = {}
  for i = 1, N do
    if costs[i] > 0 then said[#said + 1] = NAME[i] .. '=' .. fl(costs[i]) end
  end
  return table.concat(said, ',')
end
local function costs_of(record)
  local made, costs = {}, {}
  for name, amount in string.gmatch(match(record, '^%S+ %S+ (%S*)') or '', '([^=,]+)=([^,]+)') do
    made[name] = tonumber(amount)
  end
  for i = 1, N do costs[i] = made[NAME[i]] or 0 end
  return costs
end
local function grace_of(costs)
  local grace
  for i = 1, N do
    if costs[i] > 0 then grace = min(grace or SPAN[i], SPAN[i]) end
  end
  return grace and ceil(grace / 1000) or GRACE
end
local function leave_line(key, costs)
  call('ZREM', LINE, key)
  set('ln', G.ln - 1)
  if G.ln == 0 then call('DEL', TAGS) else
    for i = 1, N do
      if costs[i] > 0 then
        call('HSET', TAGS, 's:' .. NAME[i], fl((tonumber(call('HGET', TAGS, 's:' .. NAME[i])) or 0) - costs[i]))
      end
    end
  end
end
local function leave_slots(key)
  call('ZREM', SLOTS, key)
  set('sq', G.sq - 1)
end
-- Who is not there when it is its turn keeps its rank for a while, and holds up nobody.
local function was_not_there(key, costs, rank)
  call('HSET', GATE, 'b:' .. key, 'w ' .. f0(NOW) .. ' ' .. costs .. ' ' .. rank)
  ends_at('b:' .. key, NOW + GRACE)
end
-- Take a booking away: what it kept flows back, up to what the bucket could still hold.
local function give_back(key, record)
  local kind = byte(record)
  if kind == 115 then leave_slots(key) end
  if kind == 103 then set('used', max(0, G.used - 1)) end
  if kind == 102 or kind == 103 then
    local costs = costs_of(record)
    for i = 1, N do
      if costs[i] > 0 then shift(i, ZERO, costs[i]) end
    end
  elseif kind == 108 then
    leave_line(key, costs_of(record))
  end
end
local function drop(key)
  call('HDEL', GATE, 'b:' .. key)
  call('ZREM', ENDS, 'b:' .. key)
end

-- Drop what is over, a few at a time: leases of calls and probes, bookings nobody came for, quarantines.
local function sweep()
  local over = call('ZRANGEBYSCORE', ENDS, '-inf', f0(NOW), 'LIMIT', 0, SWEPT)
  if over[1] then
    local records = call('HMGET', GATE, unpack(over))
    call('HDEL', GATE, unpack(over))
    call('ZREM', ENDS, unpack(over))
    for i, name in ipairs(over) do
      local record, kind = records[i], byte(name)
      if record and record ~= '-' and kind == 99 then release(record) end
      if record and kind == 98 then
        local key = string.sub(name, 3)
        give_back(key, record)
        if byte(record) == 103 then was_not_there(key, match(record, '^g %d+ (%S*) (%d+)$')) end
      end
    end
  end
  if #over == SWEPT then set('due', NOW) else
    local first = call('ZRANGE', ENDS, 0, 0, 'WITHSCORES')[2]
    set('due', first and max(tonumber(first), NOW + SWEEP_EVERY) or 0)
  end
end

-- How long (us) a view may not rely on what it sees: until it reopens, or until the ramp is over.
local function left(ramp)
  if G.st == OPEN then return max(0, G['until'] - NOW) end
  local over = 0
  if G.st == CLOSED and ramp > 0 and G.rf > 0 then over = G.rf + ramp - NOW end
  return max(0, G.pa - NOW, over)
end
local function say(ramp)
  call('PUBLISH', 'news:' .. TAG, 's ' .. f0(G.st) .. ' ' .. f0(G.gen) .. ' ' .. f0(left(ramp)) .. ' ' .. f0(G.fo)
    .. ' ' .. f0(NOW))
end
-- Begin a generation, one that no server that lost its tail can give again.
local function turn(state)
  set('st', state)
  set('gen', max(G.gen + 1, floor(NOW / 1000)))
  set('pr', 0)
  set('ok', 0)
end
