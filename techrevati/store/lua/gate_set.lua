-- gate_set: declare the gate, or put an operator's hand on its breaker.
-- Twin: techrevati.store.twin.gate_declare.gate_set
-- include: _gate _breaker
--
-- KEYS[1]  gate
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  what       declare; open, close, disable, enable
-- ARGV[4]  revision   the higher wins; of equals the newest
-- ARGV[5]  digest
-- ARGV[6]  text       JSON, kept as it is
-- ARGV[7]  by         who declares
-- ARGV[8]  seed       full; empty: it was there before, and its levels are lost
-- ARGV[9]  open       us it is known to stay open, of a gate that was lost
-- ARGV[10...] bucket, ns per token, ns to fill
-- returns  declare: {1 taken | 2 known | 0 another stands, _, version, epoch, text, by, at, revision,
--          the same four before, now, state, generation, left, forced}; else {1, _, now, state, generation, left,
--          forced}; {-13, _} not declared
local h = call('HMGET', GATE, 'us', 'min', 'v', 'st', 'gen', 'until', 'fo', 'rf', 'pa', 'run', 'nf', 'e0', 'digest',
  'text', 'by', 'at', 'rev', 'names')
local version, what, revision, digest, seed = h[3], ARGV[3], ARGV[4], ARGV[5], ARGV[8]
local refused = enter(h[1], h[2], version, version, h[12] or '0')
if refused then return refused end
G.st, G.gen, G['until'], G.fo = tonumber(h[4] or 0), tonumber(h[5] or 0), tonumber(h[6] or 0), tonumber(h[7] or 0)
G.rf, G.pa, G.run, G.nf = tonumber(h[8] or 0), tonumber(h[9] or 0), tonumber(h[10] or 0), tonumber(h[11] or 0)
local function state() return NOW, G.st, G.gen, left(0), G.fo end

if what ~= 'declare' then
  if not version then return { -13, '' } end
  if what == 'open' then set('fo', 1) elseif what == 'disable' then set('fo', 2) else
    set('fo', 0)
    set('opens', 0)
    set('pa', 0)
    close()
    set('rf', 0)
  end
  say(0)
  flush()
  return { 1, '', state() }
end

local text, by, at, rev = h[14] or '', h[15] or '', h[16] or '', h[17] or '0'
local same = h[13] == digest and tonumber(revision) <= tonumber(rev)
if version and (same or tonumber(revision) < tonumber(rev)) then
  flush()
  return { same and 2 or 0, '', version, h[12], text, by, at, rev, text, by, at, rev, state() }
end
local epoch = h[12] or f0(NOW)
ZERO = (NOW - tonumber(epoch)) * 1000
local known, names = {}, {}
for name in string.gmatch(h[18] or '', '%S+') do known[name] = true end
for i = 10, #ARGV, 3 do
  local name, each, span = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local empty = seed == 'empty' and ZERO or ZERO - span
  if known[name] then                                -- its level stays what it was, in tokens
    local was = call('HMGET', GATE, 'z:' .. name, 'u:' .. name, 'k:' .. name)
    local level = (ZERO - max(tonumber(was[1]), ZERO - tonumber(was[3]))) / tonumber(was[2])
    empty = ceil(ZERO - min(level, span / each) * each)
    known[name] = nil
  end
  names[#names + 1] = name
  write('z:' .. name, f0(empty))
  write('u:' .. name, fl(each))
  write('k:' .. name, f0(span))
end
for name in pairs(known) do call('HDEL', GATE, 'z:' .. name, 'u:' .. name, 'k:' .. name) end
local fresh = not version
if fresh then call('DEL', ENDS, LINE, TAGS, SLOTS, EVID) end  -- what a lost gate left behind
version = revision .. ':' .. digest .. ':' .. epoch
write('v', version)
write('e0', epoch)
write('digest', digest)
write('text', ARGV[6])
write('by', ARGV[7])
write('at', f0(NOW))
write('rev', revision)
write('names', table.concat(names, ' '))
if fresh and tonumber(ARGV[9]) > 0 then              -- lost while it was open: it stays so
  set('st', OPEN)
  set('gen', floor(NOW / 1000))
  set('until', NOW + tonumber(ARGV[9]))
  set('opens', 1)
  set('pa', G['until'])
end
call('PUBLISH', 'news:' .. TAG, 'v ' .. version)
flush()
for _, key in ipairs({ GATE, ENDS, LINE, TAGS, SLOTS }) do call('PEXPIRE', key, 34560000000) end
return { 1, '', version, epoch, ARGV[6], ARGV[7], f0(NOW), revision, text, by, at, rev, state() }
