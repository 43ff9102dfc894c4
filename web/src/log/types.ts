import type { AgentEvent } from './agent'

/** A log line of the API. */
export interface LogLine {
  seq: number
  attempt: number
  timestamp: string
  stream: 'stdout' | 'stderr' | 'system'
  content: string
  part?: 'first' | 'middle' | 'last'
  /** Of a line of an agent CLI; for a split line, of its last piece. */
  events?: AgentEvent[]
}
