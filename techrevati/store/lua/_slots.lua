-- Slots: who waits for one, and whose turn it is.
-- Twin: techrevati.store.twin.gate_slots
local HOLD, LOOKED, STEP = 1000000, 127, 30000000    -- us, members, us that a step of priority is worth

local function top_of(limit, slots)
  limit = tonumber(limit or 0)
  return floor(min(limit > 0 and limit or slots, slots))
end
local function is_serving() return G.fo == 2 or (G.st == CLOSED and G.fo == 0) end
local function whisper(ear, text) return call('PUBLISH', 'news:' .. TAG .. ':' .. ear, text) end
local function put(key, told, named, here, rank, lease, ear, id)
  call('HSET', GATE, 'b:' .. key, 's ' .. f0(told) .. ' ' .. named .. ' ' .. f0(here) .. ' ' .. rank .. ' ' .. lease .. ' '
    .. ear .. ' ' .. id)
end

-- Let those at the head of the line out while slots are free, up to `me`, who asks now: give the time its tokens are
-- there; nil if it is not its turn, and whether the one at the head still waits for tokens.
local function hand_over(top, me, paced)
  if G.sq == 0 or G.used >= top or not is_serving() then return nil, false end
  for _, key in ipairs(call('ZRANGE', SLOTS, 0, LOOKED)) do
    if G.used >= top then return nil, false end
    local record = call('HGET', GATE, 'b:' .. key)
    local told, named, here, rank, lease, ear, id = match(record, '^s (%d+) (%S*) (%d+) (%d+) (%d+) (%S*) (.*)$')
    local costs = costs_of(record)
    told, here = tonumber(told), tonumber(here)
    local start = max(paced and G.pa or NOW, NOW + ceil((start_of(costs, ZERO) - ZERO) / 1000))
    if key == me then return start, false end
    local listens = here > NOW
    if listens or (told > 0 and told >= NOW - GRACE and told <= NOW + HOLD) then
      if start > NOW or paced then                   -- it has to ask for its tokens, or its turn in the ramp
        if listens and (told == 0 or told > start or told < NOW - HOLD) then
          put(key, start, named, here, rank, lease, ear, id)
          whisper(ear, 't ' .. f0(NOW) .. ' ' .. f0(start - NOW) .. ' ' .. id)
        end
        return nil, true
      end
      leave_slots(key)
      if not listens then                            -- it was told to come now: one is kept for it
        local over = max(told, NOW) + HOLD
        set('used', G.used + 1)
        spend(costs, ZERO)
        call('HSET', GATE, 'b:' .. key, 'g ' .. f0(over) .. ' ' .. named .. ' ' .. rank)
        ends_at('b:' .. key, over)
      elseif whisper(ear, 'o ' .. f0(NOW) .. ' ' .. f0(G.gen) .. ' ' .. id) > 0 then
        local over = NOW + tonumber(lease)
        set('used', G.used + 1)
        spend(costs, ZERO)
        drop(key)
        call('HSET', GATE, 'c:' .. id, '0:1:' .. f0(NOW) .. ':' .. f0(G.gen) .. ':' .. f0(over))
        ends_at('c:' .. id, over)
      else
        was_not_there(key, named, rank)
      end
    end
  end
  return nil, false
end
