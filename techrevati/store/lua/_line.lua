-- Line: who waits for a start too far ahead to be promised.
-- Twin: techrevati.store.twin.gate_bookings
local PRIORITY = 30000000000                         -- ns: a step of priority is worth so long a wait

local function book(key, record, over)
  write('b:' .. key, record)
  ends_at('b:' .. key, over)
end
-- Promise a time to those at the head of the line whose start is near.
local function promote(horizon, booking)
  local kept
  for _, key in ipairs(call('ZRANGE', LINE, 0, 63)) do
    local record = call('HGET', GATE, 'b:' .. key)
    local costs = costs_of(record)
    local at = ceil(start_of(costs, ZERO) / 1000)
    if at - ZERO / 1000 > horizon then return kept end
    spend(costs, at * 1000)
    local tag, virtual = tonumber(match(record, '^l (%S+)')), tonumber(call('HGET', TAGS, 'v') or 0)
    if tag > virtual then call('HSET', TAGS, 'v', fl(tag)) end
    leave_line(key, costs)
    local starts = f0(NOW - ZERO / 1000 + at)
    record = 'f ' .. starts .. ' ' .. costs_text(costs)
    call('HSET', GATE, 'b:' .. key, record)          -- at once: another round may read it
    ends_at('b:' .. key, tonumber(starts) + grace_of(costs))
    if key == booking then kept = record end
  end
  return kept
end
-- Stand in line: by share of the tenant, then priority, then who came first.
local function stand(record, booking, tenant, priority, weight, reach)
  local tag, score
  if record then score = tonumber(call('ZSCORE', LINE, booking)) else
    local v = call('HMGET', TAGS, 'v', 't:' .. tenant)
    tag = max(tonumber(v[1] or 0), tonumber(v[2] or 0))
    score = tag - priority * PRIORITY
  end
  local ahead = call('ZCOUNT', LINE, '-inf', fl(score)) - (record and 1 or 0)
  local wait, size = 0, 0
  for i = 1, N do
    if AMOUNT[i] > 0 then
      local mean = 0
      if G.ln > 0 then mean = (tonumber(call('HGET', TAGS, 's:' .. NAME[i])) or 0) / G.ln end
      wait = max(wait, max(Z[i], ZERO - SPAN[i]) + (ahead * mean + AMOUNT[i]) * EACH[i] - ZERO)
      size = max(size, AMOUNT[i] * EACH[i])
    end
  end
  wait = max(1, ceil(wait / 1000))
  local over = NOW + wait + grace_of(AMOUNT)
  if record then
    ends_at('b:' .. booking, over)
    return 2, wait
  end
  if booking == '' or wait > reach then return 0, wait end
  call('HSET', TAGS, 't:' .. tenant, fl(tag + size / weight))
  call('ZADD', LINE, fl(score), booking)
  set('ln', G.ln + 1)
  for i = 1, N do
    if AMOUNT[i] > 0 then
      call('HSET', TAGS, 's:' .. NAME[i], fl((tonumber(call('HGET', TAGS, 's:' .. NAME[i])) or 0) + AMOUNT[i]))
    end
  end
  book(booking, 'l ' .. fl(tag) .. ' ' .. costs_text(AMOUNT), over)
  return 2, wait
end
