package edged

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"leadpipe/internal/natstest"
)

func TestCheck(t *testing.T) {
	s := natstest.New(t, natstest.LazySync)
	well := map[string]string{"PUBLIC_URL": "https://hooks.example.com", "NATS_URL": s.URL("edge"), "STRIPE_WEBHOOK_SECRET": "whsec_hidden1",
		"FACEBOOK_APP_SECRET": "hidden2", "FACEBOOK_VERIFY_TOKEN": "hidden3", "TWILIO_ACCOUNT_SID": "AC00000000000000000000000000000001", "TWILIO_AUTH_TOKEN": "hidden4"}
	conf := natstest.Root(t, "nats.conf")
	open := filepath.Join(t.TempDir(), "nats.conf")
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(open, bytes.Replace(text, []byte("host: 127.0.0.1"), []byte("host: 0.0.0.0"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	free := fmt.Sprint(natstest.Port(t)) // a port on which nobody will answer
	quiet := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(quiet, bytes.Replace(text, []byte("port: 4222"), []byte("port: "+free), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		set  map[string]string
		want string
	}{
		"all is well":           {nil, "ok    streams: WEBHOOKS as declared"},
		"development passwords": {nil, "off   NATS: development passwords"},
		"a wrong value":         {map[string]string{"EDGE_ADDR": "xyz"}, "FAIL  EDGE_ADDR: "},
		"not https":             {map[string]string{"PUBLIC_URL": "http://hooks.example.com"}, "FAIL  PUBLIC_URL: "},
		"no server":             {map[string]string{"NATS_URL": "nats://127.0.0.1:1"}, "FAIL  NATS: "},
		"no rights":             {map[string]string{"NATS_URL": s.URL("consumers")}, "FAIL  NATS: the user edge may not store Stripe's webhooks"},
		"a wrong password":      {map[string]string{"NATS_URL": strings.Replace(s.URL("edge"), "edge:edge@", "edge:hidden5@", 1)}, "FAIL  NATS: the server refuses the user edge"},
		"no stripe":             {map[string]string{"STRIPE_WEBHOOK_SECRET": ""}, "off   Stripe: no route"},
		"an API key as secret":  {map[string]string{"STRIPE_WEBHOOK_SECRET": "whsec_hidden1,sk_live_hidden6"}, "FAIL  Stripe: 1 of 2 secrets do not begin with whsec_"},
		"no challenge":          {map[string]string{"FACEBOOK_VERIFY_TOKEN": ""}, "FAIL  Meta: its challenge"},
		"no meta":               {map[string]string{"FACEBOOK_APP_SECRET": "", "FACEBOOK_VERIFY_TOKEN": ""}, "off   Meta: no route"},
		"no twilio":             {map[string]string{"TWILIO_AUTH_TOKEN": ""}, "off   Twilio: no routes"},
		"no account":            {map[string]string{"TWILIO_ACCOUNT_SID": ""}, "off   Twilio: webhooks of other accounts"},
		"no nats.conf":          {map[string]string{"NATS_URL": "", "NATS_CONF": "nowhere.conf"}, "FAIL  NATS: NATS_CONF: "},
		"an open nats.conf":     {map[string]string{"NATS_URL": "", "NATS_CONF": open}, "FAIL  NATS: nats.conf listens beyond loopback"},
		"its own server":        {map[string]string{"NATS_URL": "", "NATS_CONF": quiet}, "ok    NATS: " + quiet + " can be read"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, set := range []map[string]string{well, tt.set} {
				for k, v := range set {
					t.Setenv(k, v)
				}
			}
			var out, errOut bytes.Buffer
			code := main([]string{"check"}, &out, &errOut)
			if !strings.Contains("\n"+out.String(), "\n"+tt.want) || errOut.Len() > 0 {
				t.Errorf("no line %q:\n%s%s", tt.want, out.String(), errOut.String())
			}
			if fails := strings.Contains("\n"+out.String(), "\nFAIL"); fails != (code == 1) || fails != strings.HasPrefix(tt.want, "FAIL") {
				t.Errorf("exit %d:\n%s", code, out.String())
			}
			if strings.Contains(out.String(), "hidden") {
				t.Errorf("it shows a secret:\n%s", out.String())
			}
		})
	}
	js := s.JetStream("operator")
	stream, err := js.Stream(t.Context(), "WEBHOOKS")
	if err != nil || stream.CachedInfo().State.LastSeq != 0 {
		t.Errorf("a check has stored something: %v", err)
	}
}
