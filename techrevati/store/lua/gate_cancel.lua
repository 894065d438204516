-- gate_cancel: give a booking back.
-- Twin: techrevati.store.twin.gate_settle.gate_cancel
-- include: _gate _slots
--
-- KEYS[1]  gate
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  version    of the declaration these arguments are made of
-- ARGV[4]  epoch      us
-- ARGV[5]  booking
-- ARGV[6]  slots      most at once, 0: not counted
-- ARGV[7]  ramp       us
-- ARGV[8...] bucket, ns per token, ns to fill, 0, 0
-- returns  {1, _, now} or {0, _, now} there is none; {-12, _, version}
local booking = ARGV[5]
buckets(8)
local names = {}
for i = 1, N do names[i] = 'z:' .. NAME[i] end
local h = call('HMGET', GATE, 'us', 'min', 'v', 'due', 'ln', 'sq', 'used', 'b:' .. booking, 'st', 'gen',
  'fo', 'rf', 'pa', 'lim', unpack(names))
local refused = enter(h[1], h[2], h[3], ARGV[3], ARGV[4])
if refused then return refused end
if not h[8] then return { 0, '', NOW } end
G.due, G.ln, G.sq, G.used = tonumber(h[4] or 0), tonumber(h[5] or 0), tonumber(h[6] or 0), tonumber(h[7] or 0)
for i = 1, N do Z[i] = tonumber(h[14 + i]) end
G.st, G.gen, G.fo = tonumber(h[9] or 0), tonumber(h[10] or 0), tonumber(h[11] or 0)
G.rf, G.pa = tonumber(h[12] or 0), tonumber(h[13] or 0)
local ramp = tonumber(ARGV[7])
give_back(booking, h[8])
drop(booking)
hand_over(top_of(h[14], tonumber(ARGV[6])), '', G.pa > NOW or (ramp > 0 and G.rf > 0 and NOW < G.rf + ramp))
for i = 1, N do write(names[i], f0(Z[i])) end
flush()
return { 1, '', NOW }
