package agented

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// NotificationKind is what a notification is about. The values are stored and part of the
// API.
type NotificationKind string

// The kinds of notifications.
const (
	NotifyFailed      NotificationKind = "failed"       // an execution failed, timed out or was interrupted
	NotifyRecovered   NotificationKind = "recovered"    // the first success of a trigger after a failure or a missing one; a backup after a failed one
	NotifyNeedsPerson NotificationKind = "needs_person" // a question, or an account that needs a login
	NotifyPaused      NotificationKind = "paused"       // an execution reached its ceiling or a budget
	NotifyParked      NotificationKind = "parked"       // an execution has been parked for long
	NotifyBudget      NotificationKind = "budget"       // a budget reached its warning level or its limit
	NotifyBackup      NotificationKind = "backup"       // a backup failed
	NotifyNoEffect    NotificationKind = "no_effect"    // an execution ended without the expected outcome, or did not publish it
	NotifyHeld        NotificationKind = "held"         // a publication waits for a person
	NotifyDeadMan     NotificationKind = "dead_man"     // no execution of a trigger succeeded within expect_every
	NotifyChannel     NotificationKind = "channel"      // another channel gave up a notification
)

// NotificationKinds lists the kinds in the order that people see.
var NotificationKinds = []NotificationKind{
	NotifyFailed, NotifyRecovered, NotifyNeedsPerson, NotifyPaused, NotifyParked, NotifyBudget, NotifyBackup, NotifyNoEffect,
	NotifyHeld, NotifyDeadMan, NotifyChannel,
}

// Notice is what happened, for the channels that want to know. Its texts must contain no
// secret.
type Notice struct {
	Kind        NotificationKind
	Trigger     TriggerID // empty: not about a trigger
	TriggerName string    // empty: that of the trigger or the execution
	Execution   ExecutionID
	Subject     string // id or name of another object, such as an account; may be empty
	Text        string // what happened, one or two sentences
	At          time.Time
}

// NotifyRules replace the rules of the channels for one trigger: they list the channels by
// the kind of notification. An empty list is none. NotifyOther stands for the kinds that
// are not listed; without it, they go to the channels that want them from every trigger.
type NotifyRules map[NotificationKind][]string

// NotifyOther is the key of NotifyRules for all kinds that are not listed.
const NotifyOther NotificationKind = "other"

// maxNotifyChannels limits the channels of one kind.
const maxNotifyChannels = 20

// Channels returns the names of the channels for a kind; ok is false if the channels'
// own rules apply.
func (r NotifyRules) Channels(k NotificationKind) (names []string, ok bool) {
	if names, ok = r[k]; !ok {
		names, ok = r[NotifyOther]
	}
	return names, ok
}

func (r NotifyRules) validate(refuse func(path, format string, args ...any)) {
	for _, kind := range slices.Sorted(maps.Keys(r)) {
		path := "notify." + clip(string(kind))
		if kind != NotifyOther && !slices.Contains(NotificationKinds, kind) {
			known := []string{string(NotifyOther)}
			for _, k := range NotificationKinds {
				known = append(known, string(k))
			}
			refuse(path, "is not a kind of notification: use %s%s", strings.Join(known, ", "), suggest(string(kind), known))
		}
		if len(r[kind]) > maxNotifyChannels {
			refuse(path, "lists too many channels: use at most %d", maxNotifyChannels)
		}
		for i, name := range r[kind] {
			if !ValidChannelName(name) {
				refuse(fmt.Sprintf("%s.%d", path, i), "is not the name of a channel; agented channel list shows them")
			}
		}
	}
}

// ValidChannelName reports whether name can be the name of a channel: 1 to 100 letters,
// digits and . _ -, beginning with a letter or a digit.
func ValidChannelName(name string) bool { return validAccountName(name) }
