-- gate_settle: take a call's end: refund or debt, the slot, the evidence.  Once per call.
-- Twin: techrevati.store.twin.gate_settle.gate_settle
-- include: _settle_fast _gate _slots _breaker
--
-- KEYS[1]  gate
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  version    of the declaration these arguments are made of
-- ARGV[4]  epoch      us
-- ARGV[5]  call id    one that was never let out here is a plain report
-- ARGV[6]  holder     the worker
-- ARGV[7]  generation that let it out; '' counts by hand
-- ARGV[8]  outcome    ok, fail, or none: says nothing
-- ARGV[9]  slow       1: took longer than it may
-- ARGV[10] overload   1: the provider was overloaded (429)
-- ARGV[11] latency    us, 0 unknown
-- ARGV[12] slots      most at once, 0: not counted
-- ARGV[13] least      slots
-- ARGV[14] step       slots gained per round of good calls, 0: fixed
-- ARGV[15] mode       0 no breaker, 1 failures in a row, 2 rate in a window
-- ARGV[16] threshold  failures, or their share
-- ARGV[17] window     us
-- ARGV[18] min calls
-- ARGV[19] slow rate  share of slow calls that opens, 0: none
-- ARGV[20] reporters  workers that must have seen it
-- ARGV[21] sick       own failures in a row that quarantine a worker
-- ARGV[22] cool-down  us
-- ARGV[23] factor     of each next one
-- ARGV[24] longest    cool-down, us
-- ARGV[25] enough     good probes that close it
-- ARGV[26] ramp       us
-- ARGV[27...] bucket, ns per token, ns to fill, tokens to give back (below 0: owed), the same in ns
-- returns  {1, _, now, state, generation, left, forced, out us}, 0 if it was settled before; {-12, _, version}
local id, holder, slots = ARGV[5], ARGV[6], tonumber(ARGV[12])
buckets(27)
local names = {}
for i = 1, N do names[i] = 'z:' .. NAME[i] end
local h = call('HMGET', GATE, 'us', 'min', 'v', 'st', 'gen', 'until', 'fo', 'pr', 'rf', 'pa', 'used', 'lim', 'la',
  'halved', 'due', 'ln', 'opens', 'f', 'run', 'ok', 'nf', 'sq', 'c:' .. id, 'x:' .. holder, unpack(names))
local refused = enter(h[1], h[2], h[3], ARGV[3], ARGV[4])
if refused then return refused end
for i = 1, N do Z[i] = tonumber(h[24 + i]) end
G.st, G.gen, G['until'], G.fo = tonumber(h[4] or 0), tonumber(h[5] or 0), tonumber(h[6] or 0), tonumber(h[7] or 0)
G.pr, G.rf, G.pa, G.used = tonumber(h[8] or 0), tonumber(h[9] or 0), tonumber(h[10] or 0), tonumber(h[11] or 0)
G.due, G.ln, G.opens, G.f = tonumber(h[15] or 0), tonumber(h[16] or 0), tonumber(h[17] or 0), tonumber(h[18] or 0)
G.run, G.ok, G.nf, G.sq = tonumber(h[19] or 0), tonumber(h[20] or 0), tonumber(h[21] or 0), tonumber(h[22] or 0)
local ramp, record, out, limit = tonumber(ARGV[26]), h[23], h[24], h[12]

local function answer(code)
  if G.sq > 0 then hand_over(top_of(limit, slots), '', G.pa > NOW or (ramp > 0 and G.rf > 0 and NOW < G.rf + ramp)) end
  for i = 1, N do
    if Z[i] ~= tonumber(h[24 + i]) then write(names[i], f0(Z[i])) end
  end
  flush()
  return { code, '', NOW, G.st, G.gen, left(ramp), G.fo, out and max(0, tonumber(out) - NOW) or 0 }
end

if G.due > 0 and NOW >= G.due then
  sweep()
  local again = call('HMGET', GATE, 'c:' .. id, 'x:' .. holder)
  record, out = again[1], again[2]
end
if record == '-' then return answer(0) end
for i = 1, N do
  -- Of a call that is not known any more, nothing flows back; what it owes is owed.
  if AMOUNT[i] < 0 or (AMOUNT[i] > 0 and record) then shift(i, ZERO, AMOUNT[i]) end
end
local outcome, slow, overload = ARGV[8], ARGV[9] == '1', ARGV[10] == '1'
if record then
  local busy, step, let_out = G.used, tonumber(ARGV[14]), release(record)
  if slots > 0 and step > 0 then
    local now = tonumber(limit or 0)
    now = now > 0 and min(now, slots) or slots
    if overload or slow then
      if let_out >= tonumber(h[14] or 0) then
        limit = max(tonumber(ARGV[13]), now / 2)
        write('lim', fl(limit))
        write('halved', f0(NOW))
      end
    elseif outcome == 'ok' and busy * 2 >= now then
      limit = min(slots, now + step / now)
      write('lim', fl(limit))
    end
  end
end
local latency = tonumber(ARGV[11])
if latency > 0 then
  local mean = tonumber(h[13] or 0)
  write('la', f0(mean == 0 and latency or mean + floor(0.2 * (latency - mean))))
end
write('c:' .. id, '-')
-- It is remembered until its lease would have ended, unless that is too soon.
if not record or tonumber(match(record, '%d+$')) < NOW + KEEP then ends_at('c:' .. id, NOW + KEEP) end
local by_hand = ARGV[7] == ''
if ARGV[15] ~= '0' and outcome ~= 'none' and G.fo == 0 and (by_hand or tonumber(ARGV[7]) == G.gen) then
  local over = judge({ mode = tonumber(ARGV[15]), threshold = tonumber(ARGV[16]), window = tonumber(ARGV[17]),
    min_calls = tonumber(ARGV[18]), slow_rate = tonumber(ARGV[19]), reporters = tonumber(ARGV[20]),
    sick = tonumber(ARGV[21]), cooldown = tonumber(ARGV[22]), factor = tonumber(ARGV[23]),
    cooldown_max = tonumber(ARGV[24]), enough = tonumber(ARGV[25]), ramp = ramp },
    holder, outcome == 'fail', slow, by_hand)
  if over then out = over end
end
return answer(1)
