package agented

import (
	"testing"
	"time"
)

func TestAccount_Check(t *testing.T) {
	t.Parallel()
	at := time.Unix(1, 0)
	for _, c := range []struct {
		account Account
		want    AccountCheck
	}{
		{Account{State: AccountReady}, CheckNotTried},
		{Account{State: AccountReady, Hint: "no program", NotInstalled: true, Used: AccountUse{At: at, Works: true}}, CheckNotInstalled},
		{Account{State: AccountReady, Hint: "no credentials"}, CheckNoCredentials},
		{Account{State: AccountReady, Hint: "no credentials", Used: AccountUse{At: at, Works: true}}, CheckWorks},
		{Account{State: AccountReady, Hint: "no credentials", Used: AccountUse{At: at}}, CheckNoCredentials},
		{Account{State: AccountReady, Used: AccountUse{At: at}}, CheckRefused},
		{Account{State: AccountNeedsLogin, Hint: "its folder does not exist"}, CheckNoCredentials},
		{Account{State: AccountNeedsLogin, Used: AccountUse{At: at}}, CheckRefused},
		{Account{State: AccountOutOfCredit, Used: AccountUse{At: at, Works: true}}, CheckRefused},
	} {
		if got := c.account.Check(); got != c.want {
			t.Errorf("%+v: %s, want %s", c.account, got, c.want)
		}
	}
}
