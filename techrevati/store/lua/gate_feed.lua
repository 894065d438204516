-- gate_feed: move the gate to what the provider says: not before a time, no more than remains, full again when.
-- Twin: techrevati.store.twin.gate_declare.gate_feed
-- include: _gate
--
-- KEYS[1]  gate
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  version    of the declaration these arguments are made of
-- ARGV[4]  epoch      us
-- ARGV[5]  hold       us: nothing before that (Retry-After); 0
-- ARGV[6]  pace       us
-- ARGV[7]  ramp       us
-- ARGV[8...] bucket, ns per token, ns to fill, remaining or '', us until it is full or ''
-- returns  {1, _, now, state, generation, left, forced}; {-12, _, version}
local names = {}
for i = 8, #ARGV, 5 do
  N = N + 1
  NAME[N], EACH[N], SPAN[N] = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  names[N] = 'z:' .. NAME[N]
end
local h = call('HMGET', GATE, 'us', 'min', 'v', 'st', 'gen', 'until', 'fo', 'rf', 'pa', unpack(names))
local refused = enter(h[1], h[2], h[3], ARGV[3], ARGV[4])
if refused then return refused end
G.st, G.gen, G['until'], G.fo = tonumber(h[4] or 0), tonumber(h[5] or 0), tonumber(h[6] or 0), tonumber(h[7] or 0)
G.rf, G.pa = tonumber(h[8] or 0), tonumber(h[9] or 0)
local hold, ramp = tonumber(ARGV[5]), tonumber(ARGV[7])
for i = 1, N do
  local remaining, reset = ARGV[8 + 5 * i - 2], ARGV[8 + 5 * i - 1]
  local empty = max(tonumber(h[9 + i]), ZERO - SPAN[i])
  if remaining ~= '' then empty = max(empty, ZERO - floor(tonumber(remaining) * EACH[i])) end
  if reset ~= '' then empty = max(empty, ZERO + tonumber(reset) * 1000 - SPAN[i]) end
  if hold > 0 then empty = max(empty, ZERO + hold * 1000) end
  write(names[i], f0(empty))
end
if hold > 0 then
  set('pa', max(G.pa, NOW + hold))
  if G.st == OPEN and G['until'] < NOW + hold then set('until', NOW + hold) end
  say(ramp)
end
flush()
return { 1, '', NOW, G.st, G.gen, left(ramp), G.fo }
