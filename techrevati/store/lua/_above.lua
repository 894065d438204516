-- Above: what those who sent a run out are told of it; what it asks may be answered through any of them.
-- Twin: techrevati.store.twin.above

-- Who stands above a run, the nearest first, each with the way from there down to it.
local function above(r)
  local found, way, id = {}, r.id, r.parent
  while id ~= '' and #found < 32 do
    local up = run_of(id)
    if not up then break end
    found[#found + 1] = { up, way }
    way, id = up.id .. ' ' .. way, up.parent
  end
  return found
end

-- A sub-agent had a turn: seen by whoever follows a parent that waits for it now, kept nowhere.
local function tell_turn(r, turn, move)
  local up = r.parent ~= '' and run_of(r.parent)
  if not up or is_tool(r) or up.home ~= 'due' or up.token ~= '' or up.why ~= 'child' then return end
  need(up, 'lseq', 'ln')
  local n = up.lseq == up.seq and num(up.ln) + 1 or 1
  call('XADD', K('live', up.id), 'MAXLEN', '~', 1000, up.seq .. '-' .. f0(n), 'type', 'child.turn', 'at', NOWS,
    'c', '-', 'attempt', '1', 'data', '{"child":"' .. r.id .. '","turn":' .. turn .. ',"move":"' .. move .. '"}')
  call('PEXPIRE', K('live', up.id), 600000)
  put(up, 'lseq', up.seq, 'ln', f0(n))
  up.woken = up.seq
end

-- A run has begun to wait for answers; calls: JSON of what it waits for.
local function asks(r, calls)
  for _, one in ipairs(above(r)) do
    local up, way = one[1], one[2]
    if not terminal(up) then
      call('HSET', K('asking', up.id), r.id, way)
      put(up, 'below', '1')
      put(r, 'asks', '1')
      event(up, '-', 'child.asked', 'child', r.id, 'agent', r.agent, 'path', way, 'data', '{"calls":' .. calls .. '}')
    end
  end
end

local function was_decided(r, call_id, ...)
  event(r, '-', 'call.decided', 'call_id', call_id, ...)
  if r.asks == '1' then
    for _, one in ipairs(above(r)) do
      if not terminal(one[1]) then event(one[1], '-', 'child.decided', 'child', r.id, 'call_id', call_id, ...) end
    end
  end
end

-- A run is over: it asks nothing any more, and nobody is asked through it.
local function asks_no_more(r)
  if r.asks == '1' then
    for _, one in ipairs(above(r)) do call('HDEL', K('asking', one[1].id), r.id) end
    put(r, 'asks', '')
  end
  if r.below == '1' then
    call('DEL', K('asking', r.id))
    put(r, 'below', '')
  end
end

-- Find who below a run asks a call, named by any of its ids, or as "<run>/<id>" where several ask the same.
-- Gives run, id; or nothing, and -6 nobody does, -7 it is decided, -13 several do, -5 the one named is not asking.
local function asker(r, name)
  local to, inner = string.match(name, '^([^/]+)/(.+)$')
  local of = to and run_of(to)
  if of then
    if call('HEXISTS', K('asking', r.id), to) == 1 then return of, inner end
    for _, one in ipairs(above(of)) do
      if one[1] == r then return nil, call('HEXISTS', K('decided', to), inner) == 1 and -7 or -5 end
    end
  end
  if r.below ~= '1' then return nil, -6 end
  if call('HLEN', K('asking', r.id)) > 128 then return nil, -13 end
  local ids, found, code = call('HKEYS', K('asking', r.id)), nil, -6
  table.sort(ids)
  for _, id in ipairs(ids) do
    local canonical = call('HGET', K('calls', id), 'id:' .. name)
    if canonical and call('HEXISTS', K('decided', id), canonical) == 1 then
      if code == -6 then code = -7 end
    elseif canonical then
      if found then return nil, -13 end
      found = id
    end
  end
  if found then return run_of(found), name end
  return nil, code
end
