package app

import (
	"context"
	"errors"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
)

// sampleDone is the key of the setting that records the first start.
const sampleDone = "first_start_done"

// sampleScript prints for about ten seconds, in colour, on both streams, with a progress line
// that overwrites itself.
const sampleScript = `
say() { printf '\033[%sm%s\033[0m\n' "$1" "$2"; }
say 1 "Hello from Agented."
echo "This is the sample trigger. It ran once, at the first start. You can run it again at any time."
for i in 1 2 3 4 5 6 7 8; do
  say "3$((i % 6 + 1))" "step $i of 8"
  [ $((i % 3)) -eq 0 ] && say 33 "a line on standard error after step $i" >&2
  printf 'working'; sleep 0.4; printf '\rworking.'; sleep 0.4; printf '\rworking..'; sleep 0.4; printf '\rdone     \n'
done
say 32 "All done. Create your own trigger: agented trigger apply -f FILE"
`

// firstStart creates and fires the sample trigger at the very first start, if it was requested.
// The first start is recorded even if this fails.
func (a *App) firstStart(ctx context.Context) error {
	if _, err := a.db.Setting(ctx, sampleDone); !errors.Is(err, agented.NotFound) {
		return err
	}
	if err := a.db.SetSetting(ctx, sampleDone, "yes"); err != nil || !a.o.Sample {
		return err
	}
	now := a.now()
	t := &agented.Trigger{
		ID: agented.TriggerID(agented.NewID("trg", now)), Name: "hello", Enabled: true, CreatedAt: now, UpdatedAt: now,
		Spec: agented.Spec{
			Backend: agented.BackendCommand, Command: []string{"sh", "-c", sampleScript},
			TimeoutSeconds: 60, MaxConcurrent: agented.DefaultMaxConcurrent,
		}.WithDefaults(),
	}
	if err := a.db.CreateTrigger(ctx, t, "first start"); err != nil {
		return err
	}
	e, _, err := a.dispatch.Fire(ctx, dispatch.Firing{Trigger: t, Source: agented.SourceManual, Actor: "first start"})
	if err != nil {
		return err
	}
	a.o.Log.Info("the sample trigger was fired", "trigger", t.ID, "execution", e.ID)
	return nil
}
