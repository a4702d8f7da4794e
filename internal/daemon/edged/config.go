// Package edged is the edge program: its configuration, and the straight line from
// there to a listening server and back to a drained one.
package edged

import (
	"errors"
	"fmt"
	"net"
	"time"

	"leadpipe/internal/bus"
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
	PublishMode     string         `envconfig:"PUBLISH_MODE" default:"auto" desc:"auto, single or group: whether acknowledgements are made one by one or many at a time; auto takes what is faster"`

	StripeKey daemon.Secret `envconfig:"STRIPE_API_KEY" desc:"for reconciliation, which the consumers do; the edge calls nobody"`
	StripeURL string        `envconfig:"STRIPE_API_URL" desc:"as above"`

	FacebookSecrets daemon.Secrets `envconfig:"FACEBOOK_APP_SECRET" desc:"one or more; unset: no Facebook route"`
	FacebookVerify  daemon.Secret  `envconfig:"FACEBOOK_VERIFY_TOKEN" desc:"answers Meta's GET challenge"`

	TwilioAccount string         `envconfig:"TWILIO_ACCOUNT_SID" desc:"AC…; where set, a webhook for another account is refused"`
	TwilioTokens  daemon.Secrets `envconfig:"TWILIO_AUTH_TOKEN" desc:"one or more; unset: no SMS routes"`
	Region        string         `envconfig:"DEFAULT_REGION" default:"FR" desc:"region of phone numbers without a prefix"`
}

// longestPublish is how long Twilio waits for an answer, after which it has gone.
const longestPublish = 15 * time.Second

// Validate names the first variable that can't be right.
func (c Config) Validate() error {
	var stripeURL, publish, mode, replicas, listen error
	if c.StripeURL != "" {
		stripeURL = daemon.URL("STRIPE_API_URL", c.StripeURL)
	}
	if c.PublishTimeout >= longestPublish {
		publish = fmt.Errorf("PUBLISH_TIMEOUT: must be shorter than Twilio waits, %v", longestPublish)
	}
	if _, err := bus.ParsePublishMode(c.PublishMode); err != nil {
		mode = fmt.Errorf("PUBLISH_MODE: %w", err)
	}
	if c.URL == "" && c.Replicas > 1 {
		replicas = errors.New("STREAM_REPLICAS: more than 1 needs a cluster, named by NATS_URL")
	}
	if _, _, err := net.SplitHostPort(c.Addr); err != nil {
		listen = errors.New("EDGE_ADDR: not an address such as :3000 or 127.0.0.1:3000")
	}
	return errors.Join(
		listen, stripeURL, publish, mode, replicas,
		daemon.URL("PUBLIC_URL", c.PublicURL),
		daemon.Positive("STRIPE_TOLERANCE", c.StripeTolerance),
		daemon.Positive("PUBLISH_TIMEOUT", c.PublishTimeout),
		daemon.Region("DEFAULT_REGION", c.Region),
		c.NATS.Validate(),
	)
}
