// Package consumersd is the consumers program: its configuration, the table of
// durables, and the straight line from there to running loops and back to drained ones.
package consumersd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"time"
	"unicode"

	"leadpipe/contracts"
	"leadpipe/internal/billing"
	"leadpipe/internal/console"
	"leadpipe/internal/daemon"
	"leadpipe/internal/leads"
	"leadpipe/internal/optouts"
	"leadpipe/internal/sheets"
	"leadpipe/internal/sms"
)

// Config is the consumers' environment.
type Config struct {
	daemon.NATS
	PublicURL       string        `envconfig:"PUBLIC_URL" default:"http://localhost:3000" desc:"the URL under which Twilio reaches the edge with delivery statuses"`
	Region          string        `envconfig:"DEFAULT_REGION" default:"FR" desc:"region of phone numbers without a prefix"`
	Metrics         string        `envconfig:"METRICS_ADDR" default:":9090" desc:"listen address of /metrics, /healthz and /readyz"`
	ConsoleAddr     string        `envconfig:"CONSOLE_ADDR" default:"127.0.0.1:9091" empty:"off" desc:"listen address of the console; empty: none"`
	ConsolePassword daemon.Secret `envconfig:"CONSOLE_PASSWORD" desc:"the console's password, for the user operator; needed off loopback"`

	StripeKey    daemon.Secret `envconfig:"STRIPE_API_KEY" desc:"Stripe API key; optional: settles what two events of one second leave open"`
	StripeURL    string        `envconfig:"STRIPE_API_URL" desc:"base URL in place of Stripe's"`
	SuspendAfter int           `envconfig:"DUNNING_SUSPEND_AFTER" default:"3" desc:"failed attempts since the last success before access is suspended"`

	FacebookSecrets daemon.Secrets `envconfig:"FACEBOOK_APP_SECRET" desc:"one or more; the first one proves our calls"`
	FacebookToken   daemon.Secret  `envconfig:"FACEBOOK_PAGE_ACCESS_TOKEN" desc:"Graph API token; unset: leads is not started"`
	GraphURL        string         `envconfig:"FACEBOOK_GRAPH_URL" default:"https://graph.facebook.com/v26.0" desc:"Graph API with its version"`

	TwilioAccount string         `envconfig:"TWILIO_ACCOUNT_SID" desc:"AC…; unset: sms and blacklist are not started"`
	TwilioTokens  daemon.Secrets `envconfig:"TWILIO_AUTH_TOKEN" desc:"one or more; the first one sends"`
	TwilioFrom    string         `envconfig:"TWILIO_FROM" desc:"sender: a number or an alphanumeric id"`
	TwilioService string         `envconfig:"TWILIO_MESSAGING_SERVICE_SID" desc:"sender: MG…, in place of TWILIO_FROM"`
	TwilioURL     string         `envconfig:"TWILIO_API_URL" desc:"base URL in place of Twilio's"`
	TwilioConsent bool           `envconfig:"TWILIO_CONSENT" default:"false" desc:"also record opt-outs in Twilio's consent API"`
	SMSMaxAge     time.Duration  `envconfig:"SMS_MAX_AGE" default:"48h" desc:"an SMS whose cause is older is never sent"`
	Company       string         `envconfig:"COMPANY_NAME" desc:"who writes: {{.Company}} in every text, and the beginning of those that are not worded otherwise"`
	ContactText   string         `envconfig:"SMS_CONTACT_TEXT" desc:"Go text/template of the answer to CONTACT, HELP and AIDE, once a day; unset: none"`
	Consent       string         `envconfig:"REQUIRE_CONSENT" desc:"key of the form's check box without which no welcome is sent; unset: none is needed"`
	QuietHours    string         `envconfig:"SMS_QUIET_HOURS" desc:"when no welcome is sent, e.g. 22:00-08:00 Europe/Paris sundays holidays; unset: never quiet"`
	WelcomeText   string         `envconfig:"SMS_WELCOME_TEXT" desc:"Go text/template over the lead; unset: a French text"`
	FailedText    string         `envconfig:"SMS_PAYMENT_FAILED_TEXT" desc:"Go text/template over the failed payment; unset: a French text"`
	OptOutText    string         `envconfig:"SMS_OPTOUT_TEXT" default:"Vous êtes désabonné. Plus de SMS." desc:"the confirmation of an opt-out"`

	SheetsID          string        `envconfig:"GOOGLE_SHEETS_ID" desc:"the spreadsheet's id; unset: sheets is not started"`
	SheetsCredentials string        `envconfig:"GOOGLE_APPLICATION_CREDENTIALS" desc:"service account file"`
	SheetsURL         string        `envconfig:"GOOGLE_SHEETS_URL" desc:"endpoint in place of Google's"`
	SheetsReads       int           `envconfig:"GOOGLE_SHEETS_READS_PER_MINUTE" default:"60" desc:"quota of calls that read"`
	SheetsGather      time.Duration `envconfig:"GOOGLE_SHEETS_GATHER" default:"1s" desc:"least time between two writes; changes are gathered meanwhile"`
	SheetsWrites      int           `envconfig:"GOOGLE_SHEETS_WRITES_PER_MINUTE" default:"60" desc:"quota of calls that write"`

	// CallTime is how long a call to Twilio may take, for tests that can't wait for the
	// lease of a text, which is three times that. 0: sms.Timeout.
	CallTime time.Duration `ignored:"true"`
	// LookEvery is how often texts are looked after, for tests alike; 0: lookEvery.
	LookEvery time.Duration `ignored:"true"`
}

// Validate names the variables that can't be right.
func (c Config) Validate() error {
	errs := []error{
		c.NATS.Validate(),
		daemon.URL("PUBLIC_URL", c.PublicURL),
		daemon.Region("DEFAULT_REGION", c.Region),
		daemon.URL("FACEBOOK_GRAPH_URL", c.GraphURL),
		daemon.Positive("SMS_MAX_AGE", c.SMSMaxAge),
		daemon.Positive("GOOGLE_SHEETS_GATHER", c.SheetsGather),
		console.CheckAddr(c.ConsoleAddr, string(c.ConsolePassword)),
	}
	for name, u := range map[string]string{"STRIPE_API_URL": c.StripeURL, "TWILIO_API_URL": c.TwilioURL, "GOOGLE_SHEETS_URL": c.SheetsURL} {
		if u != "" {
			errs = append(errs, daemon.URL(name, u))
		}
	}
	if c.TwilioAccount != "" && !plain(c.TwilioAccount) || !plain(c.TwilioTokens.First()) {
		errs = append(errs, errors.New("TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN: letters and digits only"))
	}
	if c.SuspendAfter < 1 {
		errs = append(errs, errors.New("DUNNING_SUSPEND_AFTER: must be 1 or more"))
	}
	if c.SheetsReads < 1 || c.SheetsWrites < 1 {
		errs = append(errs, errors.New("GOOGLE_SHEETS_READS_PER_MINUTE, GOOGLE_SHEETS_WRITES_PER_MINUTE: must be 1 or more"))
	}
	if c.SheetsCredentials != "" {
		if _, err := os.Stat(c.SheetsCredentials); err != nil {
			errs = append(errs, fmt.Errorf("GOOGLE_APPLICATION_CREDENTIALS: %w", errors.Unwrap(err)))
		} else if c.SheetsID != "" { // else other programs of this machine may mean something else by it
			if err := sheets.CheckCredentials(c.SheetsCredentials); err != nil {
				errs = append(errs, fmt.Errorf("GOOGLE_APPLICATION_CREDENTIALS: %w", err))
			}
		}
	}
	if _, _, err := net.SplitHostPort(c.Metrics); err != nil {
		errs = append(errs, errors.New("METRICS_ADDR: not an address such as :9090 or 127.0.0.1:9090"))
	}
	if c.TwilioFrom != "" && c.TwilioService != "" {
		errs = append(errs, errors.New("TWILIO_FROM, TWILIO_MESSAGING_SERVICE_SID: only one of the two can be the sender"))
	}
	if _, err := sms.ParseQuietHours(c.QuietHours); err != nil {
		errs = append(errs, fmt.Errorf("SMS_QUIET_HOURS: %w", err))
	}
	return errors.Join(append(errs, c.texts()...)...)
}

// texts tries every text out, as the operator has worded it.
func (c Config) texts() (errs []error) {
	welcome, err := leads.ParseWelcome(c.WelcomeText)
	errs = append(errs, err)
	failed, err2 := billing.ParsePaymentFailed(c.FailedText)
	errs = append(errs, err2)
	_, err3 := optouts.ParseText(c.OptOutText)
	_, err4 := optouts.ParseContact(c.ContactText)
	errs = append(errs, err3, err4)
	if err != nil || err2 != nil || !alphanumeric(c.TwilioFrom) {
		return errs
	}
	// A name can't be answered, so a text from it must not ask for an answer. French law
	// wants another way: a short code, or a link.
	// https://www.twilio.com/docs/glossary/what-alphanumeric-sender-id
	for name, render := range map[string]func() (string, error){
		"SMS_WELCOME_TEXT": func() (string, error) {
			return welcome.Render(leads.Greeting{FirstName: "Zoé", Name: "Zoé Martin", FormID: "1", Company: c.Company})
		},
		"SMS_PAYMENT_FAILED_TEXT": func() (string, error) {
			return failed.Render(billing.PaymentFailed{Name: "Zoé Martin", Amount: "29,00 €", Attempt: 1, Company: c.Company})
		},
	} {
		if text, err := render(); err == nil && asksForAnswer.MatchString(text) {
			errs = append(errs, fmt.Errorf("%s: it says to answer STOP, and TWILIO_FROM is a name, which can't be answered: word it otherwise, e.g. STOP au 36123", name))
		}
	}
	return errs
}

// asksForAnswer finds "Répondez STOP" and "Reply STOP"; "STOP au 36123" is no answer.
var asksForAnswer = regexp.MustCompile(`(?i)\b(?:r[ée]pond\p{L}*|reply|answer)\P{L}{1,4}(?:par\P{L}+|with\P{L}+)?STOP\b`)

// alphanumeric says whether a sender is a name rather than a number.
func alphanumeric(from string) bool { return strings.ContainsFunc(from, unicode.IsLetter) }

// plain says whether Twilio's client takes a credential.
func plain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') })
}

// missing gives, for each durable that can't be started, what its provider lacks.
func (c Config) missing() map[string]string {
	m := map[string]string{}
	if c.FacebookToken == "" {
		m["leads"] = "FACEBOOK_PAGE_ACCESS_TOKEN is not set"
	}
	switch {
	case c.TwilioAccount == "" || len(c.TwilioTokens) == 0:
		m["sms"] = "TWILIO_ACCOUNT_SID or TWILIO_AUTH_TOKEN is not set"
	case c.TwilioFrom == "" && c.TwilioService == "":
		m["sms"] = "neither TWILIO_FROM nor TWILIO_MESSAGING_SERVICE_SID is set"
	}
	if why, ok := m["sms"]; ok {
		m["blacklist"] = why
	} else if !c.TwilioConsent {
		m["blacklist"] = "TWILIO_CONSENT is not true"
	}
	switch {
	case c.SheetsID == "":
		m["sheets"] = "GOOGLE_SHEETS_ID is not set"
	case c.SheetsCredentials == "":
		m["sheets"] = "GOOGLE_APPLICATION_CREDENTIALS is not set"
	}
	return m
}

// undeclared are the durables that need not be on the server: Twilio's consent API is an
// option, and a durable that nobody reads would only grow.
func (c Config) undeclared() []string {
	if _, off := c.missing()[contracts.Blacklist]; off {
		return []string{contracts.Blacklist}
	}
	return nil
}
