-- Stand: take a place in the line for slots; the arguments are gate_admit's.
-- Twin: techrevati.store.twin.gate_slots
-- Take a place in the line for slots, or keep it; serve those before it; give 1 if it is its turn.
local function stand_for_slot(top, mean, last, was_in, rank, paced, start, why)
  local id, priority, lease, max_wait, reach = ARGV[5], tonumber(ARGV[8]), ARGV[10], tonumber(ARGV[11]), tonumber(ARGV[12])
  local booking, ear = ARGV[13], ARGV[20]
  mean = tonumber(mean or 0)
  local each = (mean > 0 and max(mean, 10000) or 1000000) / max(top, 1)
  if not is_serving() or booking == '' then          -- half-open: it comes again, with its turn behind the breaker
    local _, others = hand_over(top, '', paced)
    local wait = ceil(each * (G.sq + 1))
    if booking == '' and G.used < top and not others and is_serving() then
      if start <= NOW then return 1 end
      return 0, start - NOW, why
    end
    if booking == '' or wait > reach then return 0, wait, 'slots' end
    book(booking, 'o ' .. f0(NOW + wait), NOW + wait + GRACE)
    return 2, wait, 'slots'
  end
  local at = max(NOW, tonumber(last or 0) + 1)
  local fresh = rank == nil
  if fresh then rank = f0(at - priority * STEP) end
  local ahead = call('ZCOUNT', SLOTS, '-inf', '(' .. rank)
  local wait = ceil(each * (ahead + 1))
  if not was_in then
    if fresh and mean > 0 and wait > reach then return 0, wait, 'slots' end
    if fresh then set('sa', at) end
    set('sq', G.sq + 1)
  end
  call('ZADD', SLOTS, rank, booking)
  call('PEXPIRE', SLOTS, 34560000000)
  local here, named = max_wait > 0 and NOW + max_wait or 0, costs_text(AMOUNT)
  put(booking, 0, named, here, rank, lease, ear, id)
  local mine = hand_over(top, booking, paced)
  if mine and mine <= NOW then
    leave_slots(booking)
    drop(booking)
    return 1
  end
  local told = mine or NOW + wait
  local comes = mine ~= nil or booking ~= id or here == 0
  if not mine and booking ~= id then told = max(told, here) end
  put(booking, comes and told or 0, named, here, rank, lease, ear, id)
  ends_at('b:' .. booking, max(told, here) + GRACE)
  return 2, told - NOW, mine and why or 'slots'
end
