package agentcli

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/agented/agented"
)

// words compiles alternatives that match whole words, ignoring case.
func words(alternatives ...string) *regexp.Regexp {
	return regexp.MustCompile(`(?i)(?:^|[^\w/-])(?:` + strings.Join(alternatives, "|") + `)(?:$|[^\w/-])`)
}

// Wordings of API errors. They are matched against errors of the model's API that a CLI reports,
// never against an agent's text. The order is that of Class.
var (
	// contextWords indicate that the request is too long: sending it again cannot help.
	contextWords = words(
		`context[ _-](?:window|length|limit)\w*`, `context_length_exceeded`, `maximum context`, `(?:prompt|input|request|conversation|message) is too (?:long|large)`,
		`prompt too long`, `request[ _]too[ _]large`, `input (?:length|token count)\b.*\bexceeds?`, `exceeds? the (?:maximum|model'?s?|context)\b.*\b(?:tokens?|length|context)`,
		`(?:output|input) token (?:maximum|limit)`, `maximum (?:number of )?(?:output |input )?tokens?`, `reduce the length`, `long context requests?`, `string too long`,
	)
	// localWords indicate a problem of this machine, the command line or a file.
	localWords = words(
		`E(?:DQUOT|NOSPC|NOENT|ACCES|PERM|MFILE|NFILE|NOMEM|ROFS|ISDIR|NOTDIR|EXIST|LOOP|INVAL|BUSY|PIPE|2BIG|IO|BADF)`, `disk quota`, `quota exceeded on (?:device|disk)`,
		`no space left`, `no such file(?: or directory)?`, `file not found`, `permission denied`, `operation not permitted`, `read-only file system`, `too many open files`,
		`os error (?:1|2|5|12|13|17|20|21|22|24|28|30|122)`, `cannot find (?:module|package)`, `err_module_not_found`, `module_not_found`, `command not found`, `unknown (?:option|argument|command|field|variant|flag)s?`,
		`unexpected argument`, `unrecogni[sz]ed (?:option|argument|key|field|subcommand)\S*`, `invalid (?:option|argument|configuration|config|type|value|session id)`,
		`json parse error`, `unterminated string(?: in json)?`, `unexpected (?:end of json|end of input|eof)`, `(?:is|are) not valid json`, `toml parse error`, `configinvaliderror`, `configparseerror`,
		`panicked at`, `segmentation fault`, `core dumped`, `heap out of memory`, `illegal instruction`, `stack overflow`, `sqlite\w*`, `database is locked`,
		`(?:agent|command|skill|tool|plugin|profile|directory)\b.{0,80}\bnot found`,
	)
	// crash matches the last line of a program that crashed.
	crash = regexp.MustCompile(`(?i)^(?:thread '[^']*' (?:\(\d+\) )?panicked|panic[:(]|fatal (?:error|runtime error)\b|fatal python error|segmentation fault|bus error|illegal instruction|the application panicked|oh no: bun has crashed|` +
		`.{0,200}\((?:core dumped|SIGSEGV|SIGABRT)\)|goroutine \d+ \[)`)
	pageWords = regexp.MustCompile(`(?i)<!doctype html|<html[\s>]|<head[\s>]|<title>|just a moment\.\.\.|attention required! \| cloudflare|cf-browser-verification|cf-mitigated|cf_chl`)

	billingWords = words(
		`credit balance`, `billing_error`, `insufficient_quota`, `out of credits?`, `payment required`, `insufficient (?:credits?|balance|funds)`, `no payment method`,
		`add a payment method`, `billing hard limit`, `usage_not_included`, `creditserror`, `to use codex with your`, `enable billing`, `billing is not enabled`, `billing account`,
	)
	accountWords = words(
		`usage limits?(?: has been| was)? (?:reached|exceeded|hit)`, `(?:hit|reached) (?:your|its)(?: [\w.-]+){0,4} (?:limit|quota|cap)`, `usage_limit\w*`, `usagelimit\w*`,
		`(?:session|weekly|daily|monthly|hourly|opus|sonnet|5-hour|five-hour) (?:usage )?limit (?:reached|exceeded|hit)`, `5-hour limit`, `five_hour`, `seven_day\w*`, `[\d-]+ hour limit`,
		`\w* ?limit reached\s*[|∙·•]`, `daily quota`, `(?:daily|monthly|weekly) limit`, `exhausted your(?: \w+){1,3}`, `per ?day`, `\w*perday[\w-]*`, `out of extra usage`, `out of codex messages`,
		`quota will reset`, `usage cap`, `quota_exhausted`, `spend(?:ing)? limit`, `quota limit`, `subscription quota`, `usage exceeded`, `terminalquotaerror`, `weekly usage limit`,
	)
	overloadWords = words(
		`overloaded(?:_error)?`, `at capacity`, `high demand`, `no capacity`, `capacity available`, `(?:model_)?capacity_exhausted`, `temporarily unavailable`, `service unavailable`,
		`slow_down`, `model is busy`,
	)
	throttleWords = words(
		`rate[ _-]?limit\w*`, `too many requests`, `resource[ _]exhausted`, `resource has been exhausted`, `(?:exceeded|exceeds|exhausted) (?:your |the )?(?:current |request |token )?quota`,
		`quota (?:exceeded|exhausted)`, `check quota`, `per minute`, `(?:request |requests |was |were |being )?throttl(?:ed|ing)(?:exception)?`, `throttlingexception`, `retryablequotaerror`,
		`too many tokens,? please wait`,
	)
	authWords = words(
		`authentication_\w+`, `authentication (?:failed|error|required|credentials)`, `invalid authentication(?: credentials)?`, `unauthorized`, `unauthenticated`, `not logged in`, `please run /login`,
		`invalid api key`, `incorrect api key`, `invalid x-api-key`, `api key not valid`, `api_key_invalid`, `api key is missing`, `api key expired`, `must specify the \w+ environment variable`,
		`set an auth method`, `invalid auth method`, `missing environment variable`, `oauth token`, `token has expired`, `token could not be refreshed`, `refresh token`, `log out and sign in`,
		`no credentials`, `missing bearer`, `login (?:has )?expired`, `logged out`, `failed to (?:log ?in|authenticate)`,
	)
	providerWords = words(`internal server error`, `server_error`, `server had an error`, `internal error`, `bad gateway`, `api_error`)
	networkWords  = words(
		`stream disconnected(?: before completion)?`, `stream closed before response\.completed`, `stream error`, `connection (?:error|failed|failure|refused|reset|closed|dropped|lost|aborted|timed out|timeout|terminated)(?: by peer)?`,
		`connect(?:ion)? error`, `socket connection was closed\w*`, `network (?:error|request failed|connection|is unreachable|changed)`, `waiting for network`, `(?:apierror|api error|typeerror): terminated`,
		`(?:request|connection|stream|response|operation|fetch|api call) timed out`, `timed out waiting for .*`, `(?:request|connect|connection|gateway|idle|read|headers?|body|stream|socket) time-?out`,
		`fetch failed`, `socket hang up`, `socketerror`, `other side closed`, `unable to connect(?: to (?:the )?api)?`, `premature close`, `transient (?:api |network )?(?:issue|error)`, `dns error`,
		`error sending request`, `e(?:connrefused|connreset|connaborted|notfound|ai_again|timedout|hostunreach|netunreach)`, `getaddrinfo`, `connectionrefused`, `failedtoopensocket`, `und_err_\w+`,
	)
	terminatedWords = regexp.MustCompile(`(?i)(?:error: |^)terminated\]?$`)
)

// Class returns the class of the failure.
func (f Failure) Class() agented.Class {
	if f.Local || f.plain() {
		return agented.ClassAgentFailure
	}
	status := f.Status
	if status == 0 {
		status = statusIn(f.Message)
	}
	message := paths.ReplaceAllString(Clip(f.Message, 4<<10), "$1")
	text := f.Kind + " | " + message
	has := func(w *regexp.Regexp) bool { return w.MatchString(text) }
	lower := strings.ToLower(text)
	// Google uses the same words for a daily quota, which resets by itself.
	google := f.Google || strings.Contains(lower, "retry in ") || strings.Contains(lower, "googleapis") || strings.Contains(lower, "quota exceeded for metric")
	switch {
	case strings.Contains(f.Kind, "connection_error"): // from the anthropic backend
		return agented.ClassNetwork
	case contextWords.MatchString(message):
		return agented.ClassAgentFailure
	case pageWords.MatchString(message) && status != 429:
		// A proxy or a bot check answered instead of the API.
		return agented.ClassNetwork
	case status == 0 && toolWords.MatchString(message):
		return agented.ClassAgentFailure
	case status == 0 && localWords.MatchString(message) && !brokenConnection.MatchString(message):
		return agented.ClassAgentFailure
	case status == 402, has(billingWords), !google && strings.Contains(lower, "billing details"):
		return agented.ClassBilling
	case accountWords.MatchString(strings.ReplaceAll(lower, "rate limit", "rate-limit")):
		return agented.ClassAccountLimit
	case has(overloadWords):
		return agented.ClassOverload
	case status == 429, has(throttleWords):
		return agented.ClassThrottle
	case status == 401, status == 403, has(authWords):
		return agented.ClassAuth
	case status == 408:
		return agented.ClassNetwork
	case status >= 500:
		return agented.ClassOverload
	case status >= 400:
		return agented.ClassAgentFailure
	case networkWords.MatchString(message), terminatedWords.MatchString(message):
		return agented.ClassNetwork
	case has(providerWords):
		return agented.ClassOverload
	case has(networkWords), f.Kind == "network":
		return agented.ClassNetwork
	}
	return agented.ClassAgentFailure
}

// toolWords indicate a problem with a tool server, whose connection is not that to the model's
// API.
var toolWords = words(`mcp error`, `mcperror`, `mcp (?:servers?|client|connection|startup)`)

// paths matches file names, whose words must be ignored.
var paths = regexp.MustCompile(`(^|[\s"'(=])(?:~|\.{1,2})?/[^\s"'/]+/[^\s"']+`)

// brokenConnection matches error codes of sockets.
var brokenConnection = words(`e(?:connrefused|connreset|connaborted|notfound|ai_again|timedout|hostunreach|netunreach)`, `getaddrinfo`, `error sending request`)

// statuses matches the notations of an HTTP status in messages: "unexpected status 401", "last
// status: 429", "API Error (us.anthropic…): 529", "rejected (429)", `"code": 503`.
var statuses = regexp.MustCompile(`(?i)(?:\bstatus(?: code)?[:=]? ?|\bapi error(?: \([^()]{0,200}\))?:? \(?|\(|\\*"(?:code|status|statusCode)\\*"\s*:\s*|\bHTTP(?:/\d(?:\.\d)?)? ?|\berror code: )([45]\d\d)\b`)

// statusIn returns the HTTP status in a message, or 0.
func statusIn(message string) int {
	for _, m := range statuses.FindAllStringSubmatchIndex(Clip(message, 64<<10), 20) {
		if message[m[0]] == '(' && !bracketed(message[m[3]:]) {
			continue // "(500 lines)"
		}
		n, err := strconv.Atoi(message[m[2]:m[3]])
		if err == nil {
			return n
		}
	}
	return 0
}

// bracketed reports whether the text after a number in parentheses shows that it is a status: a
// closing parenthesis, an API's answer or the name of the status.
func bracketed(after string) bool { return statusName.MatchString(after) }

var statusName = regexp.MustCompile(`(?i)^(?:\)|:? ?\{|,|:? ?(?:too many|unauthorized|forbidden|payment|not found|request|internal|bad|service|gateway|overloaded))`)
