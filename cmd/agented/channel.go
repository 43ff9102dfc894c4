package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/term"
)

func channelCommand() *cobra.Command {
	return group("channel", "Set up where notifications are sent", channelAdd(), channelUpdate(), channelList(), channelTest(), channelDelete())
}

func notificationCommand() *cobra.Command {
	return group("notification", "Show what was sent to channels", notificationList())
}

// channelFlags adds the flags of add and update.
func channelFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSlice("events", nil, "kinds of notifications that it receives from every trigger, separated by commas; none for only what triggers send to it by name (default: all)")
	f.String("digest", "", "cron of a regular summary, such as '0 7 * * *'; off removes it")
	f.String("zone", "", "time zone of the summary (default: the server's)")
	f.Bool("skip-empty", false, "send no summary if nothing ran and nothing waits")
	f.String("from-secret", "", "use this named secret as the URL, for email as the password, instead of standard input")
}

// channelChange builds the request from the flags of add and update.
func channelChange(cmd *cobra.Command) (c client.ChannelChange, err error) {
	f := cmd.Flags()
	if f.Changed("events") {
		list, _ := f.GetStringSlice("events")
		if len(list) == 1 && (list[0] == "none" || list[0] == "") {
			list = []string{}
		}
		c.Events = &list
	}
	spec, _ := f.GetString("digest")
	zone, _ := f.GetString("zone")
	skip, _ := f.GetBool("skip-empty")
	switch {
	case spec == "" && (zone != "" || skip):
		return c, usageError{errors.New("--zone and --skip-empty belong to --digest: add it")}
	case spec != "" && spec != "off":
		c.Digest = &client.DigestPlan{Cron: spec, Zone: zone}
		if skip {
			c.Digest.Empty = "skip"
		}
	}
	return c, nil
}

// channelSecret returns the secret value of a channel: a named secret, or standard input.
func channelSecret(cmd *cobra.Command, what string) (any, error) {
	if name, _ := cmd.Flags().GetString("from-secret"); name != "" {
		return client.ChannelSecret{Name: name}, nil
	}
	return readChannelSecret(cmd.Context(), what)
}

func readChannelSecret(ctx context.Context, what string) (string, error) {
	if term.IsTerminal(os.Stdin) {
		b, err := term.AskSecret(ctx, what+": ")
		return string(b), err
	}
	b, err := term.ReadStdin(ctx, what, agented.MaxSecret+2)
	return strings.TrimSpace(string(b)), err
}

func channelAdd() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "add NAME --kind KIND", Short: "Create a channel", Args: exactArgs("the channel's name"),
		Long: `Create a channel for notifications. The URL of a webhook, of an incoming webhook of Slack,
Teams or Discord, or of a topic of ntfy is a secret: it is read from standard input, or from
a prompt that does not echo it. For email, the password is read so if --username is set.
With --from-secret a named secret is used instead.

For a webhook the server creates the secret that signs its messages (Standard Webhooks) and
prints it once.

Addresses that are not public are rejected, unless the setting AGENTED_NOTIFY_ALLOW contains
them. Test the channel with "agented channel test NAME".`,
		Example: `  agented channel add team --kind slack < url.txt
  agented channel add ops --kind webhook --events failed,backup < url.txt
  agented channel add phone --kind ntfy --from-secret ntfy-url
  agented channel add mail --kind email --host smtp.example.org --username agented \
    --from agented@example.org --to ann@example.org --digest '0 7 * * *' < password.txt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			in := client.ChannelCreate{Name: args[0]}
			in.Kind, _ = cmd.Flags().GetString("kind")
			change, err := channelChange(cmd)
			if err != nil {
				return err
			}
			in.ChannelChange = change
			switch {
			case in.Kind == "":
				return usageError{errors.New("--kind is required: webhook, slack, teams, discord, ntfy or email")}
			case in.Kind == "email":
				err = mailFlags(cmd, &in.ChannelChange)
			default:
				in.URL, err = channelSecret(cmd, "URL of channel "+term.Printable(args[0]))
			}
			if err != nil {
				return err
			}
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			got, err := c.CreateChannel(cmd.Context(), in)
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, got)
			}
			fmt.Fprintf(os.Stderr, "created %s (%s)\n", term.Printable(got.Value.Name), got.Value.ID)
			if s := got.Value.SigningSecret; s != "" {
				fmt.Fprintln(os.Stderr, "Its messages are signed with this secret, which is not shown again:")
				fmt.Println(s)
			}
			return nil
		},
	})
	f := cmd.Flags()
	f.String("kind", "", "webhook, slack, teams, discord, ntfy or email")
	channelFlags(cmd)
	f.String("host", "", "email: the mail server")
	f.Int("port", 0, "email: port of the mail server (default 587, with --tls tls 465)")
	f.String("tls", "", "email: starttls (default), tls, or none")
	f.String("username", "", "email: user of the mail server")
	f.String("from", "", "email: the sender's address")
	f.StringArray("to", nil, "email: a recipient; may be repeated")
	return cmd
}

// mailFlags adds the flags of a mail server to the request.
func mailFlags(cmd *cobra.Command, c *client.ChannelChange) (err error) {
	c.Host, c.Port, c.TLS, c.Username, c.From = flagText(cmd, "host"), flagInt(cmd, "port"), flagText(cmd, "tls"), flagText(cmd, "username"), flagText(cmd, "from")
	if to, _ := cmd.Flags().GetStringArray("to"); len(to) > 0 {
		c.To = &to
	}
	if c.Username != nil {
		c.Password, err = channelSecret(cmd, "password of the mail server")
	}
	return err
}

func channelUpdate() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "update NAME", Short: "Change a channel", Args: exactArgs("the channel's name"),
		Long: `Change what a channel receives, its summary, or its URL. With --url the new URL is read from
standard input; --from-secret sets the URL, and for email the password. Notifications that
wait are tried again at once.`,
		Example: `  agented channel update team --events failed,recovered,needs_person
  agented channel update team --digest '30 7 * * MON-FRI' --zone Europe/Berlin
  agented channel update team --enabled=false`,
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := channelChange(cmd)
			if err != nil {
				return err
			}
			change.Enabled = flagBool(cmd, "enabled")
			if on, _ := cmd.Flags().GetBool("url"); on {
				if change.URL, err = readChannelSecret(cmd.Context(), "the URL"); err != nil {
					return err
				}
			}
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			if name, _ := cmd.Flags().GetString("from-secret"); name != "" {
				if err := namedTarget(cmd, c, args[0], name, &change); err != nil {
					return err
				}
			}
			var got client.Response[client.Channel]
			if spec, _ := cmd.Flags().GetString("digest"); spec == "off" {
				got, err = c.RemoveDigest(cmd.Context(), args[0], change)
			} else {
				got, err = c.UpdateChannel(cmd.Context(), args[0], change)
			}
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, got)
			}
			fmt.Fprintf(os.Stderr, "changed %s\n", term.Printable(got.Value.Name))
			return nil
		},
	})
	channelFlags(cmd)
	cmd.Flags().Bool("enabled", true, "whether notifications are sent to it")
	cmd.Flags().Bool("url", false, "read a new URL from standard input")
	return cmd
}

// namedTarget sets a named secret as the URL of a channel, for email as the password.
func namedTarget(cmd *cobra.Command, c *client.Client, ref, secret string, change *client.ChannelChange) error {
	got, err := c.Channel(cmd.Context(), ref)
	if err != nil {
		return err
	}
	if got.Value.Kind == "email" {
		change.Password = client.ChannelSecret{Name: secret}
	} else {
		change.URL = client.ChannelSecret{Name: secret}
	}
	return nil
}

func channelList() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "list", Short: "List channels", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			return showList(cmd, c.Channels(cmd.Context(), 0), listing{
				header: "NAME KIND STATE WAITING DIGEST EVENTS",
				empty:  "There are no channels. Create one with `agented channel add NAME --kind KIND`.",
			}, func(ch *client.Channel) []string {
				state, digest, events := "on", "-", strings.Join(ch.Events, ",")
				switch {
				case !ch.Enabled:
					state = "off"
				case ch.Failures > 0:
					state = fmt.Sprintf("%d failed", ch.Failures)
				}
				if ch.Digest != nil {
					digest = ch.Digest.Cron
				}
				if len(ch.Events) == len(agented.NotificationKinds) {
					events = "all"
				} else if events == "" {
					events = "-"
				}
				return []string{ch.Name, ch.Kind, state, fmt.Sprint(ch.Pending), digest, events}
			})
		},
	})
}

func channelTest() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "test NAME", Short: "Send a test message, and show the answer", Args: exactArgs("the channel's name"),
		Long: "Send a test message to a channel now, once, and show what the other side answered. The exit code is 1 if it did not accept the message.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			got, err := c.TestChannel(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				if err := term.PrintJSON(os.Stdout, got); err != nil {
					return err
				}
			} else {
				fmt.Println(term.Printable(got.Value.Answer))
			}
			if got.Value.Status != "sent" {
				return agented.Errorf(agented.Unavailable, "the test message was not accepted")
			}
			return nil
		},
	})
}

func channelDelete() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "delete NAME", Aliases: []string{"rm"}, Short: "Delete a channel that no trigger names", Args: exactArgs("the channel's name"),
		Long: "Delete a channel with its notifications, also those that wait. While triggers name it, nothing is deleted.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			if err := c.DeleteChannel(cmd.Context(), args[0]); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, map[string]string{"deleted": args[0]})
			}
			fmt.Fprintf(os.Stderr, "deleted %s\n", term.Printable(args[0]))
			return nil
		},
	})
}

func notificationList() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "list", Short: "List notifications, newest first", Args: exactArgs(),
		Example: `  agented notification list --channel team
  agented notification list --status gave_up`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			limit, _ := cmd.Flags().GetInt("limit")
			channel, _ := cmd.Flags().GetString("channel")
			status, _ := cmd.Flags().GetString("status")
			return showList(cmd, c.Notifications(cmd.Context(), channel, status, limit), listing{
				header: "AT CHANNEL KIND ABOUT STATUS ANSWER",
				empty:  "There are no notifications.",
			}, func(n *client.Notification) []string {
				about := n.TriggerName
				if about == "" {
					about = "-"
				}
				if n.More > 0 {
					about += fmt.Sprintf(" and %d more", n.More)
				}
				return []string{term.Ago(n.At), n.Channel, n.Kind, about, n.Status, n.Answer}
			})
		},
	})
	f := cmd.Flags()
	f.String("channel", "", "only of this channel")
	f.String("status", "", "only pending, sent or gave_up")
	f.Int("limit", 50, "number of notifications; 0 means all")
	return cmd
}
