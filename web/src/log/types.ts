/** A line of a log as the API gives it. */
export interface LogLine {
  seq: number
  attempt: number
  timestamp: string
  stream: 'stdout' | 'stderr' | 'system'
  content: string
  part?: 'first' | 'middle' | 'last'
}
