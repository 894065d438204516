-- Breaker: evidence in, state out.
-- Twin: techrevati.store.twin.gate_breaker
local EVID = 'evid:' .. TAG
local REPORTERS, DAY = 128, 86400000                 -- workers kept; ms

local function forget()
  if G.nf > 0 then
    call('DEL', EVID)
    set('nf', 0)
  end
end
local function fresh_window()
  for _, field in ipairs({ 'we', 'wt', 'wf', 'ws', 'pt', 'pf', 'ps' }) do write(field, '0') end
end
local function close(ramp)
  turn(CLOSED)
  set('f', 0)
  set('rf', NOW)
  set('run', G.run + 1)
  fresh_window()
  forget()
end
local function trip(rule)
  if G.st == CLOSED and NOW - G.rf >= rule.ramp + rule.cooldown then set('opens', 0) end
  set('until', NOW + floor(min(rule.cooldown * rule.factor ^ G.opens, rule.cooldown_max) + 0.5))
  set('opens', G.opens + 1)
  turn(OPEN)
  set('pa', G['until'])
  forget()
  say(rule.ramp)
end

-- Add to the sliding window; the stretch before counts as far as it reaches into it.
local function count(rule, failed, slow)
  local w = call('HMGET', GATE, 'we', 'wt', 'wf', 'ws', 'pt', 'pf', 'ps')
  for i = 1, 7 do w[i] = tonumber(w[i] or 0) end
  local epoch = floor(NOW / rule.window)
  if epoch == w[1] + 1 then w = { epoch, 0, 0, 0, w[2], w[3], w[4] }
  elseif epoch ~= w[1] then w = { epoch, 0, 0, 0, 0, 0, 0 } end
  w[2], w[3], w[4] = w[2] + 1, w[3] + (failed and 1 or 0), w[4] + (slow and 1 or 0)
  for i, field in ipairs({ 'we', 'wt', 'wf', 'ws', 'pt', 'pf', 'ps' }) do write(field, f0(w[i])) end
  local before = 1 - (NOW - epoch * rule.window) / rule.window
  local calls = w[2] + w[5] * before
  if calls < rule.min_calls then return false end
  return w[3] + w[6] * before >= rule.threshold * calls
    or (rule.slow_rate > 0 and w[4] + w[7] * before >= rule.slow_rate * calls)
end

-- Note a worker's failure; give its failures in a row, and how many workers there is evidence of.
local function testify(rule, worker)
  local known = call('HGET', EVID, worker)
  if not known and call('HLEN', EVID) >= REPORTERS then call('DEL', EVID) end
  local failures = (known and tonumber(match(known, '^%d+')) or 0) + 1
  call('HSET', EVID, worker, f0(failures) .. ' ' .. f0(G.run) .. ' ' .. f0(NOW))
  call('PEXPIRE', EVID, DAY)
  local all, workers, entries = call('HGETALL', EVID), 0, 0
  for i = 2, #all, 2 do
    local run, last = match(all[i], '^%d+ (%d+) (%d+)')
    entries = entries + 1
    if rule.mode == 1 and tonumber(run) == G.run or rule.mode == 2 and tonumber(last) > NOW - rule.window then
      workers = workers + 1
    end
  end
  set('nf', entries)
  return failures, workers
end
local function recount(worker, failures)
  local known = call('HGET', EVID, worker)
  if known then call('HSET', EVID, worker, failures .. match(known, '( .*)$')) end
end

-- Take one result of the current generation, or one recorded by hand.
local function judge(rule, worker, failed, slow, by_hand)
  local bad = failed or (slow and (rule.mode == 1 or G.st == HALF_OPEN))
  if G.st == OPEN then
    if not by_hand then return end
    set('f', bad and G.f + 1 or 0)
    if bad then
      set('until', NOW + floor(rule.cooldown + 0.5))
      set('pa', max(G.pa, G['until']))
      say(rule.ramp)
    end
    return
  end
  if G.st == HALF_OPEN then
    if bad then
      set('f', G.f + 1)
      trip(rule)
    else
      set('ok', G.ok + 1)
      if by_hand or G.ok >= rule.enough then
        close()
        say(rule.ramp)
      end
    end
    return
  end
  if bad then set('f', G.f + 1) elseif G.f > 0 then
    set('f', 0)
    set('run', G.run + 1)
  end
  local tripped, own, workers = false, 0, 0
  if rule.mode == 2 then tripped = count(rule, failed, slow) else tripped = G.f >= rule.threshold end
  if rule.reporters > 1 then
    if bad or slow then
      own, workers = testify(rule, worker)
      tripped = tripped and workers >= rule.reporters
    elseif G.nf > 0 then
      recount(worker, '0')
    end
  end
  if not (bad or slow) then return end
  if tripped then trip(rule) elseif rule.reporters > 1 and own >= rule.sick then
    recount(worker, f0(rule.sick - 1))
    local over = NOW + floor(rule.cooldown + 0.5)
    write('x:' .. worker, f0(over))
    ends_at('x:' .. worker, over)
    return over
  end
end
