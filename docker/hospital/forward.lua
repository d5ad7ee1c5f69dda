-- Routing rules of the archive.
--
-- CT series go to the node "liverseg" when no slice of them has arrived for StableAge seconds. Results of the node go to
-- "pacs" if the environment variable SEND_RESULTS is "true". What is not sent yet is listed in a file. It is sent again at
-- the start, with the next series, and every LuaHeartBeatPeriod seconds, which Orthanc 1.10 does not support.

local NODE = 'liverseg'
local PACS = 'pacs'
local RESULTS = {SEG = true, SR = true, RTSTRUCT = true}
local SEND_RESULTS = os.getenv('SEND_RESULTS') == 'true'
local FILE = GetOrthancConfiguration()['StorageDirectory'] .. '/not-sent.txt'

local waiting = {} -- "SERIES MODALITY", as in the file
local jobs = {} -- those that are under way, by the id of their job

local function save()
  local file = assert(io.open(FILE .. '.new', 'w'))
  for line in pairs(waiting) do
    file:write(line, '\n')
  end
  file:close()
  assert(os.rename(FILE .. '.new', FILE))
end

local function load()
  local file = io.open(FILE)
  if file then
    for line in file:lines() do
      waiting[line] = true
    end
    file:close()
  end
end

local function send(line)
  local series, modality = line:match('^(%S+) (%S+)$')
  local order = {Resources = {series}, Synchronous = false}
  local made, answer = pcall(RestApiPost, '/modalities/' .. modality .. '/store', DumpJson(order))
  local job = made and answer and ParseJson(answer)
  if job and job['ID'] then
    jobs[job['ID']] = line
  elseif not pcall(ParseJson, RestApiGet('/series/' .. series)) then
    waiting[line] = nil -- deleted meanwhile
    save()
  end
end

local function send_waiting()
  local active = {}
  for _, line in pairs(jobs) do
    active[line] = true
  end
  local lines = {}
  for line in pairs(waiting) do
    lines[#lines + 1] = line
  end
  for _, line in ipairs(lines) do
    if not active[line] then
      send(line)
    end
  end
end

function OnStableSeries(series, tags, metadata)
  local modality = nil
  if tags['Modality'] == 'CT' then
    modality = NODE
  elseif SEND_RESULTS and RESULTS[tags['Modality']] and tags['Manufacturer'] == 'liverseg' then
    modality = PACS
  end
  if modality then
    waiting[series .. ' ' .. modality] = true
    save()
    send_waiting()
  end
end

function OnJobSuccess(id)
  if jobs[id] then
    waiting[jobs[id]] = nil
    jobs[id] = nil
    save()
  end
end

function OnJobFailure(id)
  jobs[id] = nil
end

function Initialize()
  load()
  send_waiting()
end

function OnHeartBeat()
  send_waiting()
end
