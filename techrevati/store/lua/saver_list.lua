-- saver_list: read a page of checkpoints that were put before one, or the last ones.
-- Twin: techrevati.store.twin.savers.saver_list
-- include: _clock _saver
--
-- KEYS[1]  head       the thread's checkpoints
-- ARGV[1]  protocol
-- ARGV[2]  now        not used: this only reads
-- ARGV[3]  before     a checkpoint's id; '' for the last ones
-- ARGV[4]  limit      1 to 128
-- returns  {1, _, first number wanted, how many, first number sent, record, ..., body, ...} all up to the last wanted,
--          oldest first, without bodies if these are big, {0, _} there is none
local refused = only_reads(ARGV[1])
if refused then return refused end
local before, limit = ARGV[3], math.min(tonumber(ARGV[4]), 128)
local head = call('HMGET', HEAD, 'n', 'first', 'id')
if not head[3] or head[3] == '' then return { 0, {} } end
local last, first = tonumber(head[1]), tonumber(head[2] or '1')
if before ~= '' then
  local number = call('HGET', HEAD, 'i' .. before)
  if not number then return { 0, {} } end
  last = tonumber(number) - 1
end
local from = max(first, last - limit + 1)
if from > last then return { 0, {} } end
local found = chain(from)
if not found then return { 0, {} } end
local sent = from - #found + 1
local names = {}
for i = from + 1, last do names[#names + 1] = f0(i) end
if names[1] then
  for _, record in ipairs(call('HMGET', HEAD, unpack(names))) do found[#found + 1] = record end
end
return tell({ 1, {}, f0(from), #found, f0(sent) }, found)
