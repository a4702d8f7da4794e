// Package edged is the edge program: its configuration, and the straight line from
// there to a listening server and back to a drained one.
package edged

import (
	"errors"
	"time"

	"leadpipe/internal/daemon"
)

// Config is the edge's environment.
type Config struct {
	Addr      string `envconfig:"EDGE_ADDR" default:":3000" desc:"listen address"`
	PublicURL string `envconfig:"PUBLIC_URL" default:"http://localhost:3000" desc:"the URL under which providers reach the edge; Twilio signs it"`
	daemon.NATS
	Conf     string `envconfig:"NATS_CONF" default:"nats.conf" desc:"configuration of the in-process NATS server"`
	StoreDir string `envconfig:"NATS_STORE_DIR" default:"./data" desc:"its files"`

	StripeSecrets   daemon.Secrets `envconfig:"STRIPE_WEBHOOK_SECRET" desc:"one or more whsec_…; unset: no Stripe route"`
	StripeTolerance time.Duration  `envconfig:"STRIPE_TOLERANCE" default:"5m" desc:"how far a Stripe signature's time may be from now, to either side"`
	PublishTimeout  time.Duration  `envconfig:"PUBLISH_TIMEOUT" default:"8s" desc:"how long a webhook waits to be stored; longer than a cluster elects a leader (5-7 s), shorter than Twilio waits (15 s)"`

	FacebookSecrets daemon.Secrets `envconfig:"FACEBOOK_APP_SECRET" desc:"one or more; unset: no Facebook route"`
	FacebookVerify  daemon.Secret  `envconfig:"FACEBOOK_VERIFY_TOKEN" desc:"answers Meta's GET challenge"`

	TwilioAccount string         `envconfig:"TWILIO_ACCOUNT_SID" desc:"AC…; where set, a webhook for another account is refused"`
	TwilioTokens  daemon.Secrets `envconfig:"TWILIO_AUTH_TOKEN" desc:"one or more; unset: no SMS routes"`
	Region        string         `envconfig:"DEFAULT_REGION" default:"FR" desc:"region of phone numbers without a prefix"`
}

// Validate names the first variable that can't be right.
func (c Config) Validate() error {
	return errors.Join(
		daemon.URL("PUBLIC_URL", c.PublicURL),
		daemon.Positive("STRIPE_TOLERANCE", c.StripeTolerance),
		daemon.Positive("PUBLISH_TIMEOUT", c.PublishTimeout),
		daemon.Region("DEFAULT_REGION", c.Region),
		c.NATS.Validate(),
	)
}
