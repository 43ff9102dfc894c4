package channels

import (
	"context"
	"strconv"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/notices"
)

// NotificationView is a notification in responses. Names are stable; fields may be added.
type NotificationView struct {
	ID          string                   `json:"id" doc:"ntf-…, the same in every attempt to send it"`
	ChannelID   string                   `json:"channel_id"`
	Channel     string                   `json:"channel" doc:"Name of the channel"`
	Kind        agented.NotificationKind `json:"kind" doc:"A kind of event, digest or test"`
	TriggerID   *agented.TriggerID       `json:"trigger_id" nullable:"true"`
	TriggerName string                   `json:"trigger_name"`
	ExecutionID *agented.ExecutionID     `json:"execution_id" nullable:"true"`
	Subject     string                   `json:"subject" doc:"Id of another object that it is about, such as an account or a budget"`
	Text        string                   `json:"text"`
	At          time.Time                `json:"at" doc:"When it happened"`
	More        int                      `json:"more" doc:"Further events of the kind that are counted in it and not listed"`
	Status      notices.Status           `json:"status" enum:"pending,sent,gave_up"`
	Attempts    int                      `json:"attempts"`
	Answer      string                   `json:"answer" doc:"What the other side answered last, or why it could not be reached"`
	NextAt      *time.Time               `json:"next_at" nullable:"true" doc:"When it is sent or tried again, while it is pending"`
	SettledAt   *time.Time               `json:"settled_at" nullable:"true" doc:"When it was sent or given up"`
}

func notificationView(n *notices.Notification) NotificationView {
	v := NotificationView{
		ID: n.ID, ChannelID: n.Channel, Channel: n.ChannelName, Kind: n.Kind, TriggerName: n.TriggerName, Subject: n.Subject, Text: n.Text, At: rest.Time(n.At),
		More: n.More, Status: n.Status, Attempts: n.Attempts, Answer: n.Answer, SettledAt: rest.OptionalTime(n.SettledAt),
	}
	if n.Trigger != "" {
		v.TriggerID = &n.Trigger
	}
	if n.Execution != "" {
		v.ExecutionID = &n.Execution
	}
	if n.Status == notices.Pending {
		at := n.Position
		if n.RetryAt.After(at) {
			at = n.RetryAt
		}
		v.NextAt = rest.OptionalTime(at)
	}
	return v
}

type notificationInput struct {
	Limit     int            `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Page size"`
	Cursor    string         `query:"cursor" maxLength:"2000" doc:"next_cursor of the previous page; omit it for the first page"`
	Channel   string         `query:"channel" maxLength:"100" doc:"Only of this channel, by id or name"`
	Status    notices.Status `query:"status" enum:"pending,sent,gave_up" doc:"Only with this status"`
	Kind      string         `query:"kind" maxLength:"50" doc:"Only of this kind"`
	Execution string         `query:"execution" maxLength:"100" doc:"Only about this execution"`
}

func (h *Channels) notifications(ctx context.Context, in *notificationInput) (*rest.ListOutput[NotificationView], error) {
	f := notices.Filter{Status: in.Status, Kind: agented.NotificationKind(in.Kind), Execution: agented.ExecutionID(in.Execution)}
	var before int64
	if in.Cursor != "" {
		n, err := strconv.ParseInt(in.Cursor, 36, 64)
		if err != nil || n <= 0 {
			return nil, rest.InQuery(agented.InvalidFields([]agented.Field{{Path: "cursor", Text: "is not a cursor of this list: omit it to start from the first page"}}))
		}
		before = n
	}
	var list []notices.Notification
	var next int64
	err := h.DB.View(ctx, "notifications", func(q notices.Querier) (err error) {
		if in.Channel != "" {
			c, err := notices.ChannelOf(q, in.Channel)
			if err != nil {
				return err
			}
			f.Channel = c.ID
		}
		list, next, err = notices.List(q, f, before, in.Limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	cursor := ""
	if next > 0 {
		cursor = strconv.FormatInt(next, 36)
	}
	return rest.List(list, cursor, notificationView), nil
}
