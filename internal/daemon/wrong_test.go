package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"leadpipe/internal/natstest"
)

// TestWrongConfigurations: each ends the program with one line on stderr that names the
// variable and shows no secret, with exit code 1, and with nothing started, connected or
// written. No NATS server is there.
func TestWrongConfigurations(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	files := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(files, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	conf, err := os.ReadFile(natstest.Root(t, "nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	good := strings.NewReplacer("port: 4222", "port: -1", `http: "127.0.0.1:8222"`, `http: "127.0.0.1:-1"`).Replace(string(conf))
	base := map[string]string{"NATS_CONF": file("nats.conf", good), "EDGE_ADDR": "127.0.0.1:0", "METRICS_ADDR": "127.0.0.1:0", "CONSOLE_ADDR": "127.0.0.1:0"}
	twilio := map[string]string{"TWILIO_ACCOUNT_SID": "AC00000000000000000000000000000001", "TWILIO_AUTH_TOKEN": "hidden0", "TWILIO_FROM": "38998"}
	sheet := map[string]string{"GOOGLE_SHEETS_ID": "sheet"}
	cases := []struct {
		program  string
		variable string // the first one is what is wrong
		value    string
		also     map[string]string
	}{
		{"edge", "EDGE_ADDR", "xyz", nil},
		{"edge", "EDGE_ADDR", ":99999", nil},
		{"edge", "EDGE_ADDR", ":http-ish", nil},
		{"edge", "EDGE_ADDR", "192.0.2.1:3000", nil}, // not this machine's
		{"edge", "EDGE_ADDR", taken.Addr().String(), nil},
		{"edge", "PUBLIC_URL", "hooks.example.com", nil},
		{"edge", "PUBLIC_URL", "https://hooks.example.com/?a=hidden1", nil},
		{"edge", "NATS_URL", "hidden2", nil},
		{"edge", "NATS_URL", "nats://edge:hidden3@", nil},
		{"edge", "NATS_URL", "nats://127.0.0.1:99999", nil},
		{"edge", "NATS_CREDS", "nowhere.creds", map[string]string{"NATS_URL": "nats://127.0.0.1:1"}},
		{"edge", "NATS_CREDS", file("bad.creds", "hidden4"), map[string]string{"NATS_URL": "nats://127.0.0.1:1"}},
		{"edge", "NATS_CONF", "nowhere.conf", nil},
		{"edge", "NATS_CONF", file("broken.conf", "jetstream { hidden5"), nil},
		{"edge", "NATS_CONF", file("empty.conf", ""), nil},
		{"edge", "NATS_STORE_DIR", file("store", "a file"), nil},
		{"edge", "NATS_EDGE_PASSWORD", "$2a$hidden6", nil},
		{"edge", "STREAM_REPLICAS", "3", nil},
		{"edge", "STREAM_REPLICAS", "two", nil},
		{"edge", "STRIPE_TOLERANCE", "0s", nil},
		{"edge", "STRIPE_WEBHOOK_SECRET", " , ", nil},
		{"edge", "PUBLISH_TIMEOUT", "1m", nil},
		{"edge", "DEFAULT_REGION", "ZZ", nil},
		{"edge", "STRIPE_API_URL", "hidden7", nil},
		{"consumers", "METRICS_ADDR", "xyz", nil},
		{"consumers", "METRICS_ADDR", "127.0.0.1:99999", nil},
		{"consumers", "METRICS_ADDR", taken.Addr().String(), nil},
		{"consumers", "CONSOLE_ADDR", "9091", nil},
		{"consumers", "CONSOLE_ADDR", taken.Addr().String(), nil},
		{"consumers", "CONSOLE_PASSWORD", "", map[string]string{"CONSOLE_ADDR": "0.0.0.0:0"}},
		{"consumers", "STREAM_REPLICAS", "2", nil},
		{"consumers", "NATS_URL", "nats://127.0.0.1:1,hidden8", nil},
		{"consumers", "NATS_CREDS", file("bad2.creds", "hidden9"), nil},
		{"consumers", "STRIPE_API_URL", "api.stripe.com", nil},
		{"consumers", "DUNNING_SUSPEND_AFTER", "0", nil},
		{"consumers", "DUNNING_SUSPEND_AFTER", "three", nil},
		{"consumers", "FACEBOOK_GRAPH_URL", "graph", nil},
		{"consumers", "FACEBOOK_APP_SECRET", ",", nil},
		{"consumers", "TWILIO_AUTH_TOKEN", "hidden-10", twilio},
		{"consumers", "TWILIO_MESSAGING_SERVICE_SID", "MG1", twilio},
		{"consumers", "TWILIO_CONSENT", "perhaps", nil},
		{"consumers", "TWILIO_API_URL", "localhost", nil},
		{"consumers", "SMS_MAX_AGE", "2 days", nil},
		{"consumers", "SMS_MAX_AGE", "-1h", nil},
		{"consumers", "SMS_QUIET_HOURS", "22-8", nil},
		{"consumers", "SMS_QUIET_HOURS", "22:00-08:00 Europe/Atlantis", nil},
		{"consumers", "SMS_WELCOME_TEXT", "{{.Nope}}", nil},
		{"consumers", "SMS_PAYMENT_FAILED_TEXT", "{{", nil},
		{"consumers", "SMS_OPTOUT_TEXT", "{{template}}", nil},
		{"consumers", "SMS_CONTACT_TEXT", "{{.}", nil},
		{"consumers", "GOOGLE_APPLICATION_CREDENTIALS", "nowhere.json", sheet},
		{"consumers", "GOOGLE_APPLICATION_CREDENTIALS", file("bad.json", "hidden11"), sheet},
		{"consumers", "GOOGLE_APPLICATION_CREDENTIALS", file("user.json", `{"type":"authorized_user","client_secret":"hidden12"}`), sheet},
		{"consumers", "GOOGLE_APPLICATION_CREDENTIALS", file("key.json", `{"type":"service_account","client_email":"a@example.com","private_key":"hidden13","token_uri":"https://oauth2.googleapis.com/token"}`), sheet},
		{"consumers", "GOOGLE_SHEETS_URL", "sheets", nil},
		{"consumers", "GOOGLE_SHEETS_READS_PER_MINUTE", "0", nil},
		{"consumers", "GOOGLE_SHEETS_WRITES_PER_MINUTE", "many", nil},
		{"consumers", "GOOGLE_SHEETS_GATHER", "0s", nil},
	}
	for _, tt := range cases {
		t.Run(tt.program+" "+tt.variable+"="+filepath.Base(tt.value), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, tt.program)
			cmd.Dir = t.TempDir()
			cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
			for _, set := range []map[string]string{base, tt.also, {tt.variable: tt.value}} {
				for k, v := range set {
					cmd.Env = append(cmd.Env, k+"="+v) // the last one counts
				}
			}
			var out, errOut bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errOut
			err := cmd.Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("ended with %v, not exit code 1", err)
			}
			said := errOut.String()
			if strings.Count(said, "\n") != 1 || !strings.Contains(said, tt.variable) || strings.HasPrefix(said, "{") || out.Len() > 0 {
				t.Errorf("said:\n%s%s", said, out.String())
			}
			if strings.Contains(said, "hidden") {
				t.Errorf("shows what was in the variable: %s", said)
			}
			if left, err := os.ReadDir(cmd.Dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}
