-- run_fork: make a thread from one version of another, with a run of its own; the source stays as it is.
-- Twin: techrevati.store.twin.start.run_fork
-- include: _unit _homes _start
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  run id     made by the client; sent again, it gets the same answer
-- ARGV[4]  tenant
-- ARGV[5]  source     thread
-- ARGV[6]  version    of the source; 0: before its first
-- ARGV[7]  commit     the version's: what was read is what is forked
-- ARGV[8]  state      JSON, as of that version; versions never change, so the caller may have read it before
-- ARGV[9]  thread     the new one
-- ARGV[10] role
-- ARGV[11] agent
-- ARGV[12] turn       the run's first: 1, or where the source would have gone on
-- ARGV[13] idem       digest of scope and key, or ''
-- ARGV[14] payload    digest of what is started
-- ARGV[15] begin      "+us", "=us" or '' (at once)
-- ARGV[16] deadline   "+us", "=us" or ''
-- ARGV[17] priority
-- ARGV[18] attempts   expiries of one turn before the run is dead
-- ARGV[19...] field, value, ...   kept with the run: input, meta, trace, project, handed
-- returns  {1 made | 0 was there, wanted, run id, thread}
--          {-2, _, run id} key used for something else, {-3, _, active} the new thread exists,
--          {-4} source gone, {-12, _, newest version} the version is not kept, or is another by now
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local id, source, version = ARGV[3], ARGV[4] .. ':' .. ARGV[5], ARGV[6]
local before = made_before(ARGV[13], ARGV[14], id, ARGV[9])
if before then return before end
local head = call('HMGET', K('thread', source), 'version', 'bytes')
if not head[1] then return { -4, {} } end
local of = {}
if version ~= '0' then
  local entry = call('XRANGE', K('ckpt', source), version .. '-0', version .. '-0')[1]
  for i = 1, entry and #entry[2] or 0, 2 do of[entry[2][i]] = entry[2][i + 1] end
  if not entry or of.c ~= ARGV[7] then return { -12, {}, head[1] } end
end
local r = run_new(id)
put(r, 'tenant', ARGV[4], 'thread', ARGV[9])
local t = thread_of(r)
if t.version ~= '' then return { -3, {}, t.active } end

begin_thread(t, r)
put(t, 'origin', version .. ' ' .. ARGV[5])
begin_run(r, t, ARGV[10], ARGV[11], ARGV[17], ARGV[18], ARGV[13], ARGV[14], when(ARGV[15]), when(ARGV[16]), 19)
put(r, 'turn', ARGV[12])
event(r, '-', 'run.forked', 'source', ARGV[5], 'version', version)
if version ~= '0' then
  local msgs = K('msgs', t.name)
  if of.n ~= '0' and call('COPY', K('msgs', source), msgs) == 1 then
    call('LTRIM', msgs, 0, f0(num(of.n) - 1))
    call('PERSIST', msgs)                           -- an idle source has a TTL, which is copied too
  end
  local commit = 'f' .. id
  call('XADD', K('ckpt', t.name), '1-0', 'c', commit, 'p', '', 'n', of.n, 's', of.s, 'r', id, 'a', NOWS, 'f', ARGV[8])
  put(t, 'version', '1', 'commit', commit, 'n', of.n, 'spans', of.s, 'bytes', head[2] or '0', 'full', '1')
end
activate(r)
return reply(1, id, r.thread)
