package edged

import (
	"context"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/bus/inproc"
	"leadpipe/internal/daemon"
	"leadpipe/streams"
)

// Main is the whole program: the edge, or its check. It returns the exit code.
func Main(args []string) int { return main(args, os.Stdout, os.Stderr) }

func main(args []string, out, errOut io.Writer) int {
	if len(args) > 0 && args[0] == "check" {
		return daemon.CheckMain("edge", args[1:], out, errOut, parts)
	}
	return daemon.Main("edge: receives webhooks, verifies them, stores them in JetStream, answers\nedge check: tries the configuration and what it names, and starts nothing", args, Run)
}

// rights are what the edge does on the server.
var rights = []daemon.Right{{Subject: "webhooks.stripe.check", For: "store Stripe's webhooks"}, {Subject: "webhooks.facebook.leadgen", For: "store Meta's webhooks"},
	{Subject: "webhooks.twilio.inbound.check", For: "store texts"}}

// parts are the parts of `edge check`.
func parts(cfg Config) []func(context.Context) []daemon.Finding {
	return []func(context.Context) []daemon.Finding{
		func(context.Context) []daemon.Finding { return cfg.checkProviders() },
		func(ctx context.Context) []daemon.Finding { return daemon.CheckPublicURL(ctx, cfg.PublicURL) },
		cfg.checkNATS,
	}
}

// checkProviders says which routes there are, and finds secrets that look like another's.
func (c Config) checkProviders() (out []daemon.Finding) {
	switch {
	case len(c.StripeSecrets) == 0:
		out = append(out, daemon.NotOn("set STRIPE_WEBHOOK_SECRET to the endpoint's whsec_…", "Stripe: no route"))
	default:
		strange := 0
		for _, s := range c.StripeSecrets {
			if !strings.HasPrefix(string(s), "whsec_") {
				strange++
			}
		}
		if strange > 0 {
			out = append(out, daemon.Bad("copy it from the endpoint's page in Stripe's dashboard", "Stripe: %d of %d secrets do not begin with whsec_", strange, len(c.StripeSecrets)))
			break
		}
		out = append(out, daemon.Good("Stripe: webhooks are verified with %d secrets", len(c.StripeSecrets)))
	}
	switch {
	case len(c.FacebookSecrets) == 0:
		out = append(out, daemon.NotOn("set FACEBOOK_APP_SECRET", "Meta: no route"))
	case c.FacebookVerify == "":
		out = append(out, daemon.Bad("set FACEBOOK_VERIFY_TOKEN to the word that you tell Meta", "Meta: its challenge can't be answered, so the webhook can't be subscribed"))
	default:
		out = append(out, daemon.Good("Meta: webhooks are verified with %d secrets", len(c.FacebookSecrets)))
	}
	switch {
	case len(c.TwilioTokens) == 0:
		out = append(out, daemon.NotOn("set TWILIO_AUTH_TOKEN", "Twilio: no routes"))
	case c.TwilioAccount == "":
		out = append(out, daemon.NotOn("set TWILIO_ACCOUNT_SID", "Twilio: webhooks of other accounts are not refused"))
	default:
		out = append(out, daemon.Good("Twilio: webhooks are verified with %d tokens", len(c.TwilioTokens)))
	}
	return out
}

func (c Config) checkNATS(ctx context.Context) []daemon.Finding {
	urls := c.URL
	if urls == "" {
		own, guessable, err := inproc.Check(c.Conf)
		switch {
		case err != nil:
			return []daemon.Finding{daemon.Bad("correct it", "NATS: %v", err)}
		case !listens(ctx, own):
			out := []daemon.Finding{daemon.Good("NATS: %s can be read; the server of this program does not run now", c.Conf)}
			if guessable {
				out = append(out, c.NATS.CheckPasswords(own)...)
			}
			return out
		}
		urls = own
	}
	out := c.CheckNATS(ctx, "edge", c.EdgePassword, urls, rights, func(ctx context.Context, js jetstream.JetStream) []daemon.Finding {
		drifts, err := streams.DiffWebhooks(ctx, js, c.Replicas)
		return daemon.CheckStreams(contracts.StreamWebhooks, "see the server's log: it may have no leader or no rights", drifts, err)
	})
	return append(out, c.CheckPasswords(urls)...)
}

// listens says whether somebody answers at the server's address.
func listens(ctx context.Context, address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}
