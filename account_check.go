package agented

import "time"

// AccountUse is the result of the latest attempt that shows whether an account works.
type AccountUse struct {
	At        time.Time // end of the attempt; zero: none since the credentials changed
	Works     bool      // the model responded
	Reason    string    // why it was refused
	Execution ExecutionID
}

// AccountProblem is what keeps an account from working, judging by the server's files and
// environment. The zero value is none.
type AccountProblem struct {
	Hint, Fix    string
	NotInstalled bool // the program of the CLI is missing
	Gone         bool // it cannot work, because its directory is missing
}

// AccountCheck is what is known about whether an account works. The values are part of the API.
type AccountCheck string

// The results of a check, from the first that is missing.
const (
	CheckNotInstalled  AccountCheck = "not_installed"  // the program of the CLI is missing
	CheckNoCredentials AccountCheck = "no_credentials" // neither credentials nor a login were found
	CheckNotTried      AccountCheck = "not_tried"      // no attempt has shown whether it works
	CheckWorks         AccountCheck = "works"          // the model responded to the latest attempt
	CheckRefused       AccountCheck = "refused"        // the latest attempt failed before the model responded
)

// Check returns whether the account works. A CLI may have a login that the server cannot see,
// so a response of the model counts more than missing credentials.
func (a *Account) Check() AccountCheck {
	switch {
	case a.NotInstalled:
		return CheckNotInstalled
	case a.State == AccountNeedsLogin, a.State == AccountOutOfCredit:
		if a.Used.At.IsZero() && a.Hint != "" {
			return CheckNoCredentials
		}
		return CheckRefused
	case !a.Used.At.IsZero() && a.Used.Works:
		return CheckWorks
	case a.Hint != "":
		return CheckNoCredentials
	case !a.Used.At.IsZero():
		return CheckRefused
	}
	return CheckNotTried
}
