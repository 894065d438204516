-- Fast admit: nothing but tokens and a free slot to look at, and both are there.  Anything else is left to what follows.
-- Twin: techrevati.store.twin.gate_admit.gate_admit, which need not tell the two ways apart
do
  local A, K, call, format, max = ARGV, KEYS[1], redis.call, string.format, math.max
  local id, booking, n = A[5], A[13], 0
  local levels, name = {}, 'c:' .. id
  for i = 21, #A, 5 do
    n = n + 1
    levels[n] = 'z:' .. A[i]
  end
  local h = call('HMGET', K, 'us', 'min', 'v', 'st', 'gen', 'fo', 'pa', 'rf', 'used', 'lim', 'due', 'ln', name,
    'x:' .. A[6], 'b:' .. booking, 'sq', unpack(levels))
  local st, fo, pa, rf, due, line = h[4], h[6], h[7], h[8], h[11], h[12]
  if h[3] == A[3] and not (h[2] or h[13] or h[14]) and (booking == '' or not h[15]) and (not st or st == '0')
    and (not fo or fo == '0') and (not line or line == '0') and (not h[16] or h[16] == '0') and (A[19] == '' or not rf or rf == '0') then
    local now = A[2]
    if now == '' then
      local t = call('TIME')
      now = t[1] * 1000000 + t[2]
    else now = tonumber(now) end
    if h[1] then now = max(now, tonumber(h[1])) end
    due = due and tonumber(due) or 0
    if (due == 0 or now < due) and (not pa or tonumber(pa) <= now) then
      local zero, nows = (now - A[4]) * 1000, format('%d', now)
      local w, k, slot, fits = { 'us', nows }, 2, ':0:', true
      if A[15] ~= '0' then
        local used, top = h[9] and tonumber(h[9]) or 0, tonumber(A[15])
        if h[10] then
          local limit = tonumber(h[10])
          if limit > 0 and limit < top then top = math.floor(limit) end
        end
        fits, slot = used < top, ':1:'
        w[3], w[4], k = 'used', format('%d', used + 1), 4
      end
      for i = 1, n do
        local at = 16 + 5 * i
        local cost = A[at + 4]
        if cost ~= '0' then
          local empty = max(tonumber(h[16 + i]), zero - A[at + 2]) + cost
          if empty > zero then
            fits = false
            break
          end
          w[k + 1], w[k + 2], k = levels[i], format('%d', empty), k + 2
        end
      end
      if fits then
        local generation, over = h[5] or '0', format('%d', now + A[10])
        w[k + 1], w[k + 2], k = name, '0' .. slot .. nows .. ':' .. generation .. ':' .. over, k + 2
        if due == 0 or tonumber(over) < due then w[k + 1], w[k + 2] = 'due', over end
        call('HSET', K, unpack(w))
        call('ZADD', 'ends:' .. string.sub(K, 6), over, name)
        return { 1, '', 0, '', 0, now, 0, tonumber(generation), 0, 0 }
      end
    end
  end
end
