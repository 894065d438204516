-- live_append: add deltas that may be dropped, but never misplaced or doubled, behind the last durable event.
-- Those of a tool call in a pool of its own are its parent's.
-- Twin: techrevati.store.twin.lease.live_append
-- include: _unit
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  run id
-- ARGV[4]  token
-- ARGV[5]  cap        entries kept, about
-- ARGV[6]  ttl        ms
-- ARGV[7]  batch      grows from call to call under one token: sent again, it adds nothing
-- ARGV[8...] type, JSON
-- returns  {1 | 0 = was there, _, seq, last n} or {-1, _, current token}, {-4} run gone
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local r, token = run_of(ARGV[3]), ARGV[4]
if not r then return { -4, {} } end
if token == '' or r.token ~= token then return { -1, {}, r.token } end
need(r, 'lseq', 'ln', 'lb', 'agent', 'parent')
local to = r
if is_tool(r) then
  to = run_of(r.parent)
  if not to or terminal(to) then return { 0, {}, '0', '0' } end
  need(to, 'lseq', 'ln')
end
local n = to.lseq == to.seq and num(to.ln) or 0
local of, batch = string.match(r.lb, '^(%S+) (%d+)$')
if of == token and tonumber(ARGV[7]) <= tonumber(batch) then return { 0, {}, to.seq, f0(n) } end
for i = 8, #ARGV, 2 do
  n = n + 1
  call('XADD', K('live', to.id), 'MAXLEN', '~', ARGV[5], to.seq .. '-' .. f0(n), 'type', ARGV[i], 'at', NOWS,
    'c', by_of(token), 'attempt', f0(num(r.attempt) + 1), 'data', ARGV[i + 1])
end
call('PEXPIRE', K('live', to.id), ARGV[6])
put(r, 'lb', token .. ' ' .. ARGV[7])
put(to, 'lseq', to.seq, 'ln', f0(n))
to.woken = to.seq
return reply(1, to.seq, f0(n))
