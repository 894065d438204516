-- gate_look: what the gate is now; nothing changes.
-- Twin: techrevati.store.twin.gate_declare.gate_look
-- include: _gate
--
-- KEYS[1]  gate
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- returns  {1, _, version, epoch, text, by, at, revision, now, state, generation, left, forced, failures, probes,
--          slots in use, slot limit, openings, in line, {bucket, ns when it was empty, ...}}; {-13, _}
local h = call('HMGET', GATE, 'us', 'min', 'v', 'st', 'gen', 'until', 'fo', 'rf', 'pa', 'e0', 'text', 'by', 'at', 'rev',
  'f', 'pr', 'used', 'lim', 'opens', 'ln', 'names', 'sq')
local refused = enter(h[1], h[2], h[3], h[3], h[10] or '0')
if refused then return refused end
if not h[3] then return { -13, '' } end
G.st, G.gen, G['until'], G.fo = tonumber(h[4] or 0), tonumber(h[5] or 0), tonumber(h[6] or 0), tonumber(h[7] or 0)
G.rf, G.pa = tonumber(h[8] or 0), tonumber(h[9] or 0)
local levels = {}
for name in string.gmatch(h[21], '%S+') do
  levels[#levels + 1] = name
  levels[#levels + 1] = call('HGET', GATE, 'z:' .. name)
end
return { 1, '', h[3], h[10], h[11], h[12], h[13], h[14], NOW, G.st, G.gen, left(0), G.fo, tonumber(h[15] or 0),
  tonumber(h[16] or 0), tonumber(h[17] or 0), h[18] or '0', tonumber(h[19] or 0),
  tonumber(h[20] or 0) + tonumber(h[22] or 0), levels }
