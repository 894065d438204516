-- Clock: for scripts whose KEYS[1] is not a partition: the caller's version, a time that never falls, numbers as text.
-- Twin: techrevati.store.twin.clock
local call, max, floor = redis.call, math.max, math.floor
local NOW, NOWS, FRESH                               -- us, the same as text, nobody was here before

local function f0(n)                                 -- `..` is exact to 14 digits, %.0f to 2^53
  if n < 1e14 and n > -1e14 then return n .. '' end
  return string.format('%.0f', n)
end
local function num(v) return tonumber(v) or 0 end

-- Take the time, never before `before`.
local function tick(given, before)
  if given ~= '' then NOW = tonumber(given) else
    local t = call('TIME')
    NOW = t[1] * 1000000 + t[2]
  end
  if before > NOW then NOW = before end
  NOWS = f0(NOW)
end

-- Refuse an old caller, then read a clock that never falls (a failover may step the server's back).
local function enter(proto, given)
  local part = call('HMGET', KEYS[1], 'us', 'min')
  if part[2] and tonumber(proto) < tonumber(part[2]) then return { -10, {}, part[2] } end
  local before = num(part[1])
  FRESH = before == 0
  tick(given, before)
  if NOW >= before + 10000 then call('HSET', KEYS[1], 'us', NOWS) end
end
