-- gate_admit: let a call out now, promise it a time, or refuse it; all parts together.
-- Twin: techrevati.store.twin.gate_admit.gate_admit
-- include: _admit_fast _gate _slots _line _stand
--
-- KEYS[1]  gate
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  version    of the declaration these arguments are made of
-- ARGV[4]  epoch      us
-- ARGV[5]  call id    sent again, it gets the same answer
-- ARGV[6]  holder     the worker
-- ARGV[7]  tenant
-- ARGV[8]  priority
-- ARGV[9]  weight     of the tenant's share
-- ARGV[10] lease      us from the start
-- ARGV[11] max wait   us the caller waits here: a start that near is given at once
-- ARGV[12] reach      us: a start further ahead is not booked
-- ARGV[13] booking    its name, '' for none
-- ARGV[14] horizon    us: starts further ahead are not promised yet
-- ARGV[15] slots      most at once, 0: not counted
-- ARGV[16] permits    probes in flight while half-open, 0: no breaker
-- ARGV[17] pace       us per call behind a breaker or a Retry-After
-- ARGV[18] stage      us
-- ARGV[19] stages     "us us ...", the ramp's pace in each
-- ARGV[20] ear        where the caller listens while it waits
-- ARGV[21...] bucket, ns per token, ns to fill, cost in tokens, the same in ns
-- returns  {1 out | 2 booked | 0 refused, _, wait us (-1 unknown), why, probe, now, state, generation, left, forced},
--          {-12, _, version}
local id, booking, slots, permits = ARGV[5], ARGV[13], tonumber(ARGV[15]), tonumber(ARGV[16])
buckets(21)
local names = {}
for i = 1, N do names[i] = 'z:' .. NAME[i] end
local h = call('HMGET', GATE, 'us', 'min', 'v', 'st', 'gen', 'until', 'fo', 'pr', 'rf', 'pa', 'used', 'lim', 'la', 'sa',
  'due', 'ln', 'sq', 'c:' .. id, 'x:' .. ARGV[6], 'b:' .. booking, unpack(names))
local refused = enter(h[1], h[2], h[3], ARGV[3], ARGV[4])
if refused then return refused end
for i = 1, N do Z[i] = tonumber(h[20 + i]) end
G.st, G.gen, G['until'], G.fo = tonumber(h[4] or 0), tonumber(h[5] or 0), tonumber(h[6] or 0), tonumber(h[7] or 0)
G.pr, G.rf, G.pa, G.used = tonumber(h[8] or 0), tonumber(h[9] or 0), tonumber(h[10] or 0), tonumber(h[11] or 0)
G.due, G.ln, G.sq = tonumber(h[15] or 0), tonumber(h[16] or 0), tonumber(h[17] or 0)
local max_wait, reach, horizon = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[14])
local pace, stage, stages, ramp = tonumber(ARGV[17]), tonumber(ARGV[18]), {}, 0
if ARGV[19] ~= '' then
  for one in string.gmatch(ARGV[19], '%d+') do stages[#stages + 1] = tonumber(one) end
  ramp = stage * #stages
end

local function answer(code, wait, why, probe)
  for i = 1, N do
    if Z[i] ~= tonumber(h[20 + i]) then write(names[i], f0(Z[i])) end
  end
  flush()
  return { code, '', wait, why, probe or 0, NOW, G.st, G.gen, left(ramp), G.fo }
end
-- The ramp's pace at a time, nil where there is none.
local function pace_of(at, origin)
  if ramp == 0 or origin <= 0 then return nil end
  return stages[floor((at - origin) / stage) + 1]
end
local function ask_in_line(record)
  local code, wait = stand(record, booking, ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9]), reach)
  return answer(code, wait, 'rate')
end

local known, out, record, top = h[18], h[19], booking ~= '' and h[20] or nil, top_of(h[12], slots)
local step = G.st == CLOSED and pace_of(NOW, G.rf) or nil
local paced = step ~= nil or G.pa > NOW
if G.due > 0 and NOW >= G.due then
  sweep()
  hand_over(top, booking, paced)
  local again = call('HMGET', GATE, 'c:' .. id, 'x:' .. ARGV[6], 'b:' .. booking)
  known, out, record = again[1], again[2], booking ~= '' and again[3] or nil
end
if known then
  if known == '-' then return answer(1, 0, '') end
  local probe, at = match(known, '(%d):%d:(%d+)')
  return answer(1, max(0, tonumber(at) - NOW), '', tonumber(probe))
end
if out and tonumber(out) > NOW then return answer(0, tonumber(out) - NOW, 'quarantined') end
if G.fo == FORCED_OPEN then return answer(0, -1, 'forced') end

-- A booking: is it due, late, or still ahead?
local paid, start, wants = '', NOW, false
for i = 1, N do wants = wants or AMOUNT[i] > 0 end
if record and byte(record) == 108 then
  record = promote(horizon, booking) or record
  if byte(record) == 108 and not wants then
    give_back(booking, record)
    drop(booking)
    record = nil
  end
end
local told, rank
if record and byte(record) ~= 108 then
  local kind
  kind, told = match(record, '^(%a) (%d+)')
  told = tonumber(told)
  if kind == 's' or kind == 'g' or kind == 'w' then
    paid, rank = kind, match(record, kind == 's' and '^s %d+ %S* %d+ (%d+)' or '(%d+)$')
  elseif NOW < told then
    if kind == 'f' and slots == 0 and told - NOW <= max_wait and (permits == 0 or G.st == CLOSED) then
      paid, start = kind, told
    else
      return answer(2, told - NOW, kind == 'f' and 'rate' or 'breaker')
    end
  elseif NOW - told > grace_of(costs_of(record)) then
    give_back(booking, record)
    drop(booking)
    record = nil
  else
    paid = kind
  end
end

local probe = 0
if permits > 0 and G.fo == 0 and G.st ~= CLOSED then
  if G.st == OPEN and NOW >= G['until'] then
    turn(HALF_OPEN)
    say(ramp)
  end
  local behind
  if G.st == OPEN then behind = G['until'] elseif G.pr < permits then probe = 1 else behind = NOW + pace end
  if behind then
    if record then
      give_back(booking, record)
      drop(booking)
    end
    local at = max(G.pa, behind)
    -- Who waits in the process books under its call's own id, and does not wait for a breaker.
    if booking ~= '' and booking ~= id and at - NOW <= reach then
      set('pa', at + (pace_of(at, behind) or pace))
      book(booking, 'o ' .. f0(at), at + GRACE)
      return answer(2, at - NOW, 'breaker')
    end
    return answer(0, at - NOW, 'breaker')
  end
end

local why = 'rate'
step = G.st == CLOSED and pace_of(NOW, G.rf) or nil
paced = (paid == '' or paid == 's' or paid == 'w') and probe == 0 and (step ~= nil or G.pa > NOW)
if paced and G.pa > start then start, why = G.pa, 'ramp' end
-- Who has a place behind others waits for its tokens there, too.
local stands = slots > 0 and probe == 0 and paid ~= 'g' and (G.sq > 0 or rank ~= nil) and is_serving()
if paid == 's' and not stands then
  give_back(booking, record)
  drop(booking)
  record, paid = nil, ''
end
if paid ~= 'f' and paid ~= 'g' then
  if G.ln > 0 and not (record and byte(record) == 108) then promote(horizon) end
  start = max(start, NOW + ceil((start_of(AMOUNT, ZERO) - ZERO) / 1000))
end
if paid ~= 'f' and paid ~= 'g' and not stands then
  if wants and (G.ln > 0 or start - NOW > horizon) then
    return ask_in_line(record and byte(record) == 108 and record or nil)
  end
  local wait = start - NOW
  if wait > 0 and (slots > 0 or wait > max_wait) then
    if booking == '' or wait > reach then return answer(0, wait, why) end
    spend(AMOUNT, (start - NOW) * 1000 + ZERO)
    if paced then set('pa', start + (step or pace)) end
    book(booking, 'f ' .. f0(start) .. ' ' .. costs_text(AMOUNT), start + grace_of(AMOUNT))
    return answer(2, wait, why)
  end
end

if slots > 0 and paid ~= 'g' then
  if stands or G.used >= top then
    if record and paid ~= 's' then
      if paid == 'f' then rank = f0(told) end
      give_back(booking, record)
      drop(booking)
      record = nil
    end
    local code, wait, whose = stand_for_slot(top, h[13], h[14], paid == 's', rank, paced, start, why)
    if code ~= 1 then return answer(code, wait, whose) end
    record, paid, start = nil, '', NOW
  end
  set('used', G.used + 1)
end

if paid == 'f' or paid == 'g' then
  local made = costs_of(record)
  for i = 1, N do
    if AMOUNT[i] ~= made[i] then shift(i, ZERO, made[i] - AMOUNT[i]) end
  end
else
  spend(AMOUNT, (start - NOW) * 1000 + ZERO)
end
if paid == 'g' and slots == 0 then set('used', max(0, G.used - 1)) end
if paced then set('pa', start + (step or pace)) end
if record then drop(booking) end
if probe == 1 then set('pr', G.pr + 1) end
local over = start + tonumber(ARGV[10])
write('c:' .. id, probe .. ':' .. (slots > 0 and '1' or '0') .. ':' .. f0(start) .. ':' .. f0(G.gen) .. ':' .. f0(over))
ends_at('c:' .. id, over)
hand_over(top, '', step ~= nil or G.pa > NOW)
return answer(1, start - NOW, '', probe)
