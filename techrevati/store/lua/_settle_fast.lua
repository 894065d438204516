-- Fast settle: a good call of a quiet breaker, of fixed slots.  Anything else is left to what follows.
-- Twin: techrevati.store.twin.gate_settle.gate_settle, which need not tell the two ways apart
do
  local A, K, call, format, max = ARGV, KEYS[1], redis.call, string.format, math.max
  local id, outcome, n = A[5], A[8], 0
  if A[9] == '0' and A[14] == '0' and (outcome == 'none' or outcome == 'ok' and A[15] ~= '2' and A[7] ~= '') then
    local levels, name = {}, 'c:' .. id
    for i = 27, #A, 5 do
      n = n + 1
      levels[n] = 'z:' .. A[i]
    end
    local h = call('HMGET', K, 'us', 'min', 'v', 'st', 'gen', 'fo', 'pa', 'rf', 'used', 'la', 'due', 'f', 'nf', name,
      'x:' .. A[6], 'sq', unpack(levels))
    local st, fo, pa, rf, due, f, nf, record = h[4], h[6], h[7], h[8], h[11], h[12], h[13], h[14]
    if h[3] == A[3] and not (h[2] or h[15]) and record and string.byte(record) == 48 and (not st or st == '0')
      and (not fo or fo == '0') and (not f or f == '0') and (not nf or nf == '0') and (not h[16] or h[16] == '0')
      and (A[26] == '0' or not rf or rf == '0') then
      local now = A[2]
      if now == '' then
        local t = call('TIME')
        now = t[1] * 1000000 + t[2]
      else now = tonumber(now) end
      if h[1] then now = max(now, tonumber(h[1])) end
      due = due and tonumber(due) or 0
      if (due == 0 or now < due) and (not pa or tonumber(pa) <= now) then
        local zero, over = (now - A[4]) * 1000, now + 10000000
        local w, k = { 'us', format('%d', now), name, '-' }, 4
        if string.byte(record, 3) == 49 then
          w[5], w[6], k = 'used', format('%d', max(0, tonumber(h[9]) - 1)), 6
        end
        for i = 1, n do
          local at = 22 + 5 * i
          local back = A[at + 4]
          if back ~= '0' then
            w[k + 1], k = levels[i], k + 2
            w[k] = format('%d', max(tonumber(h[16 + i]), zero - A[at + 2]) - back)
          end
        end
        if A[11] ~= '0' then
          local latency, mean = tonumber(A[11]), h[10] and tonumber(h[10]) or 0
          w[k + 1], k = 'la', k + 2
          w[k] = format('%d', mean == 0 and latency or mean + math.floor(0.2 * (latency - mean)))
        end
        -- It is remembered until its lease would have ended, unless that is too soon.
        if tonumber(string.match(record, '%d+$')) < over then
          if due == 0 or over < due then w[k + 1], w[k + 2] = 'due', format('%d', over) end
          call('ZADD', 'ends:' .. string.sub(K, 6), format('%d', over), name)
        end
        call('HSET', K, unpack(w))
        return { 1, '', now, 0, h[5] and tonumber(h[5]) or 0, 0, 0, 0 }
      end
    end
  end
end
