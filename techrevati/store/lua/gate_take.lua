-- gate_take: spend tokens of one bucket where nothing else is to be looked at, or say how long they take to come.
-- Twin: techrevati.store.twin.gate_take.gate_take
--
-- KEYS[1]  gate       of buckets only
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  version    of the declaration these arguments are made of
-- ARGV[4]  epoch      us
-- ARGV[5]  bucket
-- ARGV[6]  span       ns to fill it
-- ARGV[7]  cost       ns
-- ARGV[8]  lane       of one caller that asks for one thing at a time
-- ARGV[9]  number     of what it asks for; one that was given before is not given twice
-- returns  {0, _} taken; {us, _} there in so long, nothing was taken; {-1, _} gate_admit has to look
local K, A, call, format, max = KEYS[1], ARGV, redis.call, string.format, math.max
local level, lane = 'z:' .. A[5], 'n:' .. A[8]
local h = call('HMGET', K, lane, 'v', 'us', level, 'due', 'pa', 'min', 'fo', 'ln')
local before = h[1]
if before and tonumber(string.match(before, '^%d+')) >= tonumber(A[9]) then return { 0, '' } end
local now = A[2]
if now == '' then
  local t = call('TIME')
  now = t[1] * 1000000 + t[2]
else now = tonumber(now) end
if h[3] then now = max(now, tonumber(h[3])) end
local due = h[5] and tonumber(h[5]) or 0
local function is_on(value) return value and value ~= '0' end
if h[2] ~= A[3] or h[7] and tonumber(A[1]) < tonumber(h[7]) or due > 0 and due <= now
  or h[6] and tonumber(h[6]) > now or is_on(h[8]) or is_on(h[9]) then return { -1, '' } end
local zero = (now - A[4]) * 1000
local empty = max(tonumber(h[4]), zero - A[6]) + A[7]
if empty > zero then return { math.ceil((empty - zero) / 1000), '' } end
-- A lane is remembered for 10 s after its last use, or up to twice as long: most calls need not say so again.
local over = before and tonumber(string.match(before, '%d+$')) or 0
if over < now + 10000000 then
  over = now + 20000000
  call('ZADD', 'ends:' .. string.sub(K, 6), format('%d', over), lane)
  if due == 0 or over < due then call('HSET', K, 'due', format('%d', over)) end
end
call('HSET', K, 'us', format('%d', now), level, format('%d', empty), lane, A[9] .. ':' .. format('%d', over))
return { 0, '' }
