-- sink_write: append entries to a bounded stream and add up what they carry, each once.
-- Twin: techrevati.store.twin.sinks.sink_write
-- include: _clock
--
-- KEYS[1]  sink       hash: us, min, seq (entries ever); ..:log stream; ..:totals hash; ..:seen sorted set: keys of
--                     entries by when; ..:writers sorted set: "<writer>" by when, and hash ..:batches: writer -> number
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  writer     a process
-- ARGV[4]  batch      its batches are numbered; one that was written is not written again
-- ARGV[5]  most       entries that the stream keeps, about
-- ARGV[6]  ttl        ms the sink is kept without use; 0 for ever
-- ARGV[7]  window     us within which an entry's key counts once, and a writer is remembered
-- ARGV[8...] key ('' for none), group, sums "turns:1 nanos:500" or '', JSON
-- returns  {1, _, entries written, number of the last}, {0, _, 0, number of the last} the batch was there
local SINK = KEYS[1]
local LOG, TOTALS, SEEN, WRITERS, BATCHES = SINK .. ':log', SINK .. ':totals', SINK .. ':seen', SINK .. ':writers',
  SINK .. ':batches'
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local writer, batch, most, ttl, window = ARGV[3], ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])
local seq = num(call('HGET', SINK, 'seq'))
local last = tonumber(call('HGET', BATCHES, writer) or nil)
if last and last >= tonumber(batch) then return { 0, {}, 0, f0(seq) } end
call('HSET', BATCHES, writer, batch)
call('ZADD', WRITERS, NOWS, writer)
local old = f0(NOW - window)
for _, gone in ipairs(call('ZRANGEBYSCORE', WRITERS, '-inf', old, 'LIMIT', 0, 16)) do
  call('HDEL', BATCHES, gone)
  call('ZREM', WRITERS, gone)
end
for _, gone in ipairs(call('ZRANGEBYSCORE', SEEN, '-inf', old, 'LIMIT', 0, 256)) do call('ZREM', SEEN, gone) end
local sums, written = {}, 0
for i = 8, #ARGV, 4 do
  local key, group = ARGV[i], ARGV[i + 1]
  local is_new = true
  if key ~= '' then
    local before = tonumber(call('ZSCORE', SEEN, key) or nil)
    is_new = not before or before <= NOW - window
    if is_new then call('ZADD', SEEN, NOWS, key) end
  end
  if is_new then
    seq, written = seq + 1, written + 1
    call('XADD', LOG, 'MAXLEN', '~', most, f0(seq) .. '-0', 'at', NOWS, 'group', group, 'data', ARGV[i + 3])
    for name, amount in string.gmatch(ARGV[i + 2], '(%a+):(%-?%d+)') do
      sums[name] = (sums[name] or 0) + tonumber(amount)
      sums[name .. ':' .. group] = (sums[name .. ':' .. group] or 0) + tonumber(amount)
    end
  end
end
for name, amount in pairs(sums) do call('HINCRBY', TOTALS, name, f0(amount)) end
call('HSET', SINK, 'seq', f0(seq))
if ttl ~= '0' then
  for _, key in ipairs({ SINK, LOG, TOTALS, SEEN, WRITERS, BATCHES }) do call('PEXPIRE', key, ttl) end
end
return { 1, {}, written, f0(seq) }
