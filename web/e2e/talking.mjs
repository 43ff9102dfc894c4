// A stand-in for claude that streams its answer, remembers its session and, depending on
// the prompt, waits for a file or reaches a rate limit once.
export const talking = `#!/bin/sh
case "$1" in --version) echo "2.1.330 (Claude Code)"; exit 0;; esac
session=; mode=new; next=
for a in "$@"; do
  case "$next" in session) session=$a;; resume) session=$a; mode=resumed;; esac
  case "$a" in --session-id) next=session;; --resume) next=resume;; *) next=;; esac
done
prompt=$(cat)
printf '%s\\n' "$prompt" | head -n 1 >> "$HOME/said"
n=$(wc -l < "$HOME/said" | tr -d ' ')
echo '{"type":"system","subtype":"init","session_id":"'$session'","model":"m","claude_code_version":"2.1.330"}'
piece() { echo '{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"'"$1"'"}},"session_id":"'$session'"}'; }
think() { echo '{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"'"$1"'"}},"session_id":"'$session'"}'; }
case "$prompt" in *limit*) if [ ! -f "$HOME/limited" ]; then touch "$HOME/limited"
  at=$(($(date +%s) + 6))
  piece "before the limit "
  echo '{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":'$at',"rateLimitType":"five_hour","overageStatus":"rejected","isUsingOverage":false},"session_id":"'$session'"}'
  echo '{"type":"assistant","message":{"model":"<synthetic>","role":"assistant","type":"message","content":[{"type":"text","text":"Claude AI usage limit reached|'$at'"}]},"session_id":"'$session'","error":"rate_limit"}'
  echo '{"type":"result","subtype":"success","is_error":true,"api_error_status":429,"result":"Claude AI usage limit reached|'$at'","session_id":"'$session'","num_turns":1,"total_cost_usd":0,"usage":{"input_tokens":0,"output_tokens":0}}'
  exit 1
fi;; esac
echo '{"type":"stream_event","event":{"type":"message_start"}}'
think "The person says something."
piece "answer $n "
case "$prompt" in *dear*) echo '{"type":"assistant","message":{"id":"m1","model":"claude-opus-4-6","content":[{"type":"text","text":"This is dear."}],"usage":{"input_tokens":1000000,"output_tokens":0}},"session_id":"'$session'"}'; while [ ! -f "$HOME/go" ]; do sleep 0.05; done;; esac
case "$prompt" in *wait*) while [ ! -f "$HOME/go" ]; do sleep 0.05; done;; esac
for i in a b c; do piece "$mode-$i "; sleep 0.05; done
piece "end of $n, see **bold**"
echo '{"type":"assistant","message":{"content":[{"type":"thinking","thinking":"The person says something."},{"type":"text","text":"answer '$n' '$mode'-a '$mode'-b '$mode'-c end of '$n', see **bold**"},{"type":"tool_use","id":"t'$n'","name":"Bash","input":{"command":"ls -l"}}]}}'
echo '{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"t'$n'","content":"total 0"}]}}'
echo '{"type":"result","subtype":"success","is_error":false,"result":"answer '$n' '$mode'-a '$mode'-b '$mode'-c end of '$n', see **bold**","session_id":"'$session'","num_turns":1,"usage":{"input_tokens":10,"output_tokens":5},"total_cost_usd":0.01}'
`
