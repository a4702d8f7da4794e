package daemon_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"leadpipe/internal/daemon"
)

type config struct {
	Addr    string         `envconfig:"DT_ADDR" default:":3000" desc:"listen address"`
	Wait    time.Duration  `envconfig:"DT_WAIT" default:"5m" desc:"a wait"`
	Count   int            `envconfig:"DT_COUNT" default:"3" desc:"a count"`
	On      bool           `envconfig:"DT_ON" default:"false" desc:"a switch"`
	Key     daemon.Secret  `envconfig:"DT_KEY" desc:"a key"`
	Secrets daemon.Secrets `envconfig:"DT_SECRETS" desc:"secrets"`
	URL     string         `envconfig:"DT_URL" desc:"a URL"`
	Page    string         `envconfig:"DT_PAGE" default:":3001" empty:"off" desc:"a second address"`
}

func (c config) Validate() error {
	return errors.Join(daemon.Positive("DT_WAIT", c.Wait))
}

func TestWrongValueNamesTheVariableAndNotTheValue(t *testing.T) {
	for _, tt := range []struct{ name, value, want string }{
		{"DT_WAIT", "tomorrow", "DT_WAIT: not a duration such as 90s, 5m or 48h"},
		{"DT_WAIT", "-5s", "DT_WAIT: must be more than zero, e.g. 5m"},
		{"DT_COUNT", "many", "DT_COUNT: not a whole number"},
		{"DT_ON", "yes please", "DT_ON: not true or false"},
	} {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			t.Setenv(tt.name, tt.value)
			_, err := daemon.Load[config]()
			if err == nil || err.Error() != tt.want {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestEmptyCountsAsUnset(t *testing.T) {
	t.Setenv("DT_ADDR", "")
	t.Setenv("DT_WAIT", " ")
	cfg, err := daemon.Load[config]()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Addr != ":3000" || cfg.Wait != 5*time.Minute || cfg.Page != ":3001" {
		t.Errorf("defaults not taken: %+v", cfg)
	}

	// But for one that says what it means.
	t.Setenv("DT_PAGE", "")
	if cfg, err = daemon.Load[config](); err != nil || cfg.Page != "" {
		t.Errorf("set to nothing: %q, %v", cfg.Page, err)
	}
}

func TestSecretsAreSplitAndNeverShown(t *testing.T) {
	t.Setenv("DT_KEY", "sesame-key")
	t.Setenv("DT_SECRETS", " sesame-1, sesame-2,,")
	t.Setenv("DT_URL", "nats://edge:sesame-3@h:4222,nats://edge:sesame-4@i:4222")
	cfg, err := daemon.Load[config]()
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Secrets.Strings(); len(got) != 2 || got[0] != "sesame-1" || got[1] != "sesame-2" {
		t.Errorf("secrets: %q", got)
	}
	var out bytes.Buffer
	log := daemon.NewLogger(&out)
	log.Info("configuration", daemon.Effective(cfg)...)
	log.Info("whole", "config", cfg, "key", cfg.Key, "secrets", cfg.Secrets)
	if strings.Contains(out.String(), "sesame") {
		t.Errorf("a secret is shown: %s", out.String())
	}
	if !strings.Contains(out.String(), `"DT_KEY":"<set>"`) || !strings.Contains(out.String(), `"DT_SECRETS":"<2 set>"`) {
		t.Errorf("set secrets are not reported as such: %s", out.String())
	}
}

func TestUsageListsEveryVariable(t *testing.T) {
	var out bytes.Buffer
	if err := daemon.Usage[config](&out, "a program"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"DT_ADDR", "DT_WAIT", "duration", "5m", "a wait", "DT_SECRETS", "secrets, comma-separated"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("usage lacks %q:\n%s", want, out.String())
		}
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"to +33639980102 failed":                          "to +336****0102 failed",
		"To=%2B33639980102&x":                             "To=%2B3****0102&x",
		"$KV.crm.contact.33639980102 changed":             "$KV.crm.contact.336**** changed",
		"sms.optout_confirmation.33639980102":             "sms.optout_confirmation.336****",
		"webhooks.twilio.optout.33639980102":              "webhooks.twilio.optout.336****",
		"mail camille@example.com!":                       "mail c****@example.com!",
		"key sk_test_abc123 and whsec_abc":                "key <secret> and <secret>",
		"Authorization: Bearer abcdefghij":                "Authorization: <secret>",
		"GET /v26.0/1?access_token=abc&x=1":               "GET /v26.0/1?<secret>&x=1",
		"lead.1234567890123456, sequence 1234567":         "lead.1234567890123456, sequence 1234567",
		"2026-11-24T02:00:00+00:00 nats://127.0.0.1:4222": "2026-11-24T02:00:00+00:00 nats://127.0.0.1:4222",
	} {
		if got := daemon.Redact(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestLogLinesAreRedactedWhateverTheyHold(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := daemon.NewLogger(&out)
	log.Error("calling +33639980102", "reason", errors.New("no +33639980102"), slog.Group("g", "to", "+33639980102"), "mail", "camille@example.com")
	if strings.Contains(out.String(), "33639980102") || strings.Contains(out.String(), "camille@") {
		t.Errorf("shown: %s", out.String())
	}
}
