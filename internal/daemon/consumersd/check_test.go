package consumersd

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/daemon"
	"leadpipe/internal/natstest"
	"leadpipe/internal/sandbox/google"
	"leadpipe/internal/sandbox/meta"
	"leadpipe/internal/sandbox/stripe"
	"leadpipe/internal/sandbox/twilio"
)

const (
	checkAccount = "AC00000000000000000000000000000001"
	checkService = "MG00000000000000000000000000000001"
	checkURL     = "https://hooks.example.com"
)

// A world is what a check asks: the providers' stand-ins and NATS, all of them well.
type world struct {
	stripe stripe.Options
	meta   meta.Options
	twilio twilio.Options
	google google.Options
	env    map[string]string
	server *natstest.Server

	sheet *google.Server
	phone *twilio.Server
}

func newWorld(s *natstest.Server) *world {
	return &world{
		stripe: stripe.Options{Key: "sk_live_right"},
		meta:   meta.Options{Token: "EAAtoken", AppSecret: "app_secret"},
		twilio: twilio.Options{AccountSID: checkAccount, AuthToken: "twilioToken", InboundURL: checkURL + "/api/webhooks/sms",
			Services: []string{checkService}, Numbers: []twilio.Number{{Number: "+33639980100", SMSURL: checkURL + "/api/webhooks/sms#rc=3"}, {Number: "36123"}, {Number: "+33639980109", Mute: true}, {Number: "+33639980108", SMSURL: "https://elsewhere.example.com/sms"}}},
		google: google.Options{Spreadsheets: []string{"sheet"}, ReadsPerMinute: google.Unlimited, WritesPerMinute: google.Unlimited},
		server: s,
		env: map[string]string{"PUBLIC_URL": checkURL, "NATS_URL": s.URL("consumers"), "STRIPE_API_KEY": "sk_live_right", "FACEBOOK_APP_SECRET": "app_secret",
			"FACEBOOK_PAGE_ACCESS_TOKEN": "EAAtoken", "TWILIO_ACCOUNT_SID": checkAccount, "TWILIO_AUTH_TOKEN": "twilioToken",
			"TWILIO_MESSAGING_SERVICE_SID": checkService, "TWILIO_CONSENT": "true", "GOOGLE_SHEETS_ID": "sheet", "COMPANY_NAME": "Atelier Martin", "SMS_QUIET_HOURS": "22:00-08:00 Europe/Paris"},
	}
}

// check runs the command in this world.
func (w *world) check(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	serve := func(h http.Handler) string {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s.URL
	}
	st, err := stripe.New(w.stripe)
	must(err)
	mt, err := meta.New(w.meta)
	must(err)
	w.phone, err = twilio.New(w.twilio)
	must(err)
	t.Cleanup(func() { _ = w.phone.Close() })
	w.sheet, err = google.New(w.google)
	must(err)
	sheetURL := serve(w.sheet)
	credentials, err := w.sheet.CredentialsJSON(sheetURL)
	must(err)
	file := filepath.Join(t.TempDir(), "account.json")
	must(os.WriteFile(file, credentials, 0o600))
	for name, value := range map[string]string{"STRIPE_API_URL": serve(st), "FACEBOOK_GRAPH_URL": serve(mt) + "/v26.0", "TWILIO_API_URL": serve(w.phone),
		"GOOGLE_SHEETS_URL": sheetURL, "GOOGLE_APPLICATION_CREDENTIALS": file} {
		t.Setenv(name, value)
	}
	for name, value := range w.env {
		t.Setenv(name, value)
	}
	var o, e bytes.Buffer
	code = check(args, &o, &e)
	if e.Len() > 0 && code != 2 {
		t.Errorf("on stderr: %s", e.String())
	}
	return code, o.String() + e.String()
}

// TestCheck makes each thing go wrong that a check can find, and wants a line for it with
// a remedy, exit code 1, no secret, and nothing changed.
func TestCheck(t *testing.T) {
	s := natstest.New(t, natstest.LazySync)
	for name, tt := range map[string]struct {
		break_ func(*world)
		want   string // the beginning of a line
	}{
		"all is well":      {func(*world) {}, "ok    Meta: the token may read leads"},
		"a wrong value":    {func(w *world) { w.env["METRICS_ADDR"] = "xyz" }, "FAIL  METRICS_ADDR: "},
		"a wrong template": {func(w *world) { w.env["SMS_WELCOME_TEXT"] = "{{.Nope}}" }, "FAIL  SMS_WELCOME_TEXT"},
		"no server":        {func(w *world) { w.env["NATS_URL"] = "nats://127.0.0.1:1" }, "FAIL  NATS: "},
		"a wrong password": {func(w *world) {
			w.env["NATS_URL"] = strings.Replace(w.env["NATS_URL"], "consumers:consumers@", "consumers:hidden1@", 1)
		}, "FAIL  NATS: the server refuses"},
		"a user without rights":  {func(w *world) { w.env["NATS_URL"] = s.URL("edge") }, "FAIL  NATS: the user consumers may not write records ($KV.crm.index.check)"},
		"development passwords":  {func(*world) {}, "off   NATS: development passwords"},
		"a stripe key refused":   {func(w *world) { w.env["STRIPE_API_KEY"] = "sk_live_hidden2" }, "FAIL  Stripe: Stripe refuses the key"},
		"stripe unwell":          {func(w *world) { w.stripe.Fault = func(stripe.Call) stripe.Fault { return stripe.RateLimited } }, "FAIL  Stripe: Stripe answers with status 429"},
		"no stripe key":          {func(w *world) { w.env["STRIPE_API_KEY"] = "" }, "off   Stripe: "},
		"a meta token refused":   {func(w *world) { w.env["FACEBOOK_PAGE_ACCESS_TOKEN"] = "EAAhidden3" }, "FAIL  Meta: the token is refused"},
		"a meta token withdrawn": {func(w *world) { w.meta.About.Invalid = true }, "FAIL  Meta: the token is refused"},
		"a meta token that ends": {func(w *world) { w.meta.About.Expires = time.Now().Add(48 * time.Hour) }, "FAIL  Meta: the token ends on "},
		"one that ends later":    {func(w *world) { w.meta.About.Expires = time.Now().Add(60 * 24 * time.Hour) }, "ok    Meta: the token is valid until "},
		"no leads_retrieval":     {func(w *world) { w.meta.About.Scopes = []string{"pages_show_list"} }, "FAIL  Meta: the token may not read leads"},
		"a token of no page":     {func(w *world) { w.meta.About.Type = "SYSTEM_USER" }, "FAIL  Meta: the token is for no page"},
		"a token of two pages": {func(w *world) { w.meta.About.Type, w.meta.About.Pages = "SYSTEM_USER", []string{"Atelier", "Magasin"} },
			"ok    Meta: for the pages Atelier (100000000000101), Magasin (100000000000101)"},
		"another app's secret":   {func(w *world) { w.meta.About.OtherApp = true }, "FAIL  Meta: "},
		"a wrong app secret":     {func(w *world) { w.env["FACEBOOK_APP_SECRET"] = "hidden4" }, "FAIL  Meta: all our calls are refused"},
		"meta unwell":            {func(w *world) { w.meta.About.Unreadable = true }, "FAIL  Meta: no readable answer of Graph's"},
		"no app secret":          {func(w *world) { w.env["FACEBOOK_APP_SECRET"], w.meta.AppSecret = "", "" }, "off   Meta: the token is valid; until when"},
		"no meta token":          {func(w *world) { w.env["FACEBOOK_PAGE_ACCESS_TOKEN"] = "" }, "off   Meta: leads are not read"},
		"a twilio token refused": {func(w *world) { w.env["TWILIO_AUTH_TOKEN"] = "hidden5" }, "FAIL  Twilio: account and token are refused"},
		"another twilio account": {func(w *world) { w.env["TWILIO_ACCOUNT_SID"] = strings.Replace(checkAccount, "1", "2", 1) }, "FAIL  Twilio: account and token are refused"},
		"a suspended account":    {func(w *world) { w.twilio.Status = "suspended" }, "FAIL  Twilio: the account is suspended"},
		"a trial account":        {func(w *world) { w.twilio.Trial = true }, "off   Twilio: a trial account"},
		"no such service":        {func(w *world) { w.env["TWILIO_MESSAGING_SERVICE_SID"] = "MG00000000000000000000000000000009" }, "FAIL  Twilio: the account has no messaging service"},
		"STOP goes elsewhere":    {func(w *world) { w.twilio.InboundURL = "https://elsewhere.example.com/sms" }, "FAIL  Twilio: texts that come in, STOP among them, go to another address"},
		"a number":               {func(w *world) { w.from("+33639980100") }, "ok    Twilio: the sender exists"},
		"a short code":           {func(w *world) { w.from("36123") }, "ok    Twilio: the sender exists"},
		"a name": {func(w *world) {
			w.from("Atelier")
			w.env["SMS_WELCOME_TEXT"], w.env["SMS_PAYMENT_FAILED_TEXT"] = "STOP au 36123", "STOP au 36123"
		}, "ok    Twilio: texts come from Atelier"},
		"no such number":          {func(w *world) { w.from("+33639980199") }, "FAIL  Twilio: the account has no number such as TWILIO_FROM"},
		"a number without texts":  {func(w *world) { w.from("+33639980109") }, "FAIL  Twilio: the number of TWILIO_FROM can't send texts"},
		"its STOP goes elsewhere": {func(w *world) { w.from("+33639980108") }, "FAIL  Twilio: texts that come in, STOP among them, go to another address"},
		"twilio unwell":           {func(w *world) { w.twilio.Fault = func(twilio.Call) twilio.Fault { return twilio.HangUpBefore } }, "FAIL  Twilio: asking Twilio: "},
		"no such spreadsheet":     {func(w *world) { w.env["GOOGLE_SHEETS_ID"] = "other" }, "FAIL  Google: there is no such spreadsheet"},
		"not shared":              {func(w *world) { w.google.NotShared = []string{"sheet"} }, "FAIL  Google: spreadsheets.get: answered 403"},
		"shared for reading":      {func(w *world) { w.google.ReadOnly = []string{"sheet"} }, "FAIL  Google: the spreadsheet "},
		"a time zone of nowhere":  {func(w *world) { w.google.TimeZone = "GMT-07:00" }, "FAIL  Google: the spreadsheet "},
		"google unwell":           {func(w *world) { w.google.Fault = func(string, int) google.Fault { return google.Unavailable } }, "FAIL  Google: spreadsheets.get: answered 503"},
		"no sheet":                {func(w *world) { w.env["GOOGLE_SHEETS_ID"] = "" }, "off   Google: GOOGLE_SHEETS_ID is not set"},
		"not https":               {func(w *world) { w.env["PUBLIC_URL"] = "http://hooks.example.com" }, "FAIL  PUBLIC_URL: http://hooks.example.com is not https"},
		"a webhook's own path":    {func(w *world) { w.env["PUBLIC_URL"] = checkURL + "/api/webhooks/sms" }, "FAIL  PUBLIC_URL: it has the path of a webhook"},
		"this machine":            {func(w *world) { w.env["PUBLIC_URL"] = "http://localhost:3000" }, "off   PUBLIC_URL: http://localhost:3000 is this machine"},
		"never quiet":             {func(w *world) { w.env["SMS_QUIET_HOURS"] = "" }, "off   texts: welcomes leave at night too"},
		"nobody writes":           {func(w *world) { w.env["COMPANY_NAME"] = "" }, "off   texts: nothing names who writes"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(s)
			tt.break_(w)
			before := lasts(t, s)
			code, out := w.check(t)
			if !strings.Contains("\n"+out, "\n"+tt.want) {
				t.Errorf("no line %q:\n%s", tt.want, out)
			}
			failed := strings.Contains("\n"+out, "\nFAIL")
			if failed != strings.HasPrefix(tt.want, "FAIL") && name != "this machine" || failed != (code == 1) || code > 1 {
				t.Errorf("exit %d:\n%s", code, out)
			}
			for line := range strings.Lines(out) {
				if strings.HasPrefix(line, "FAIL") && !strings.Contains(line, " — ") {
					t.Errorf("no remedy: %s", line)
				}
			}
			for _, secret := range []string{"hidden", "sk_live_right", "EAAtoken", "app_secret", "twilioToken"} {
				if strings.Contains(out, secret) {
					t.Errorf("it shows %s", secret)
				}
			}
			if after := lasts(t, s); after != before {
				t.Errorf("streams changed: %v, before %v", after, before)
			}
			if n := w.phone.Count(twilio.Send) + w.phone.Count(twilio.Consents); n > 0 {
				t.Errorf("%d calls changed something at Twilio", n)
			}
		})
	}
}

// from makes a number the sender.
func (w *world) from(number string) {
	w.env["TWILIO_MESSAGING_SERVICE_SID"], w.env["TWILIO_FROM"] = "", number
}

func lasts(t *testing.T, s *natstest.Server) (out [2]uint64) {
	t.Helper()
	js := s.JetStream("operator")
	for i, name := range []string{contracts.StreamWebhooks, contracts.StreamCRM} {
		stream, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		out[i] = stream.CachedInfo().State.LastSeq
	}
	return out
}

// Drift, and streams that are not there yet.
func TestCheckOfStreams(t *testing.T) {
	s := natstest.New(t, natstest.LazySync, natstest.Bare)
	w := newWorld(s)
	if code, out := w.check(t); code != 0 || !strings.Contains(out, "off   streams: WEBHOOKS does not exist yet") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	s.Apply()
	js := s.JetStream("operator")
	stream, err := js.Stream(t.Context(), contracts.StreamWebhooks)
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.MaxAge = time.Hour
	cfg.Duplicates = time.Minute
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := js.UpdateConsumer(t.Context(), contracts.StreamWebhooks, jetstream.ConsumerConfig{Durable: contracts.Billing, Description: "Keeps customers, subscriptions and churn",
		FilterSubject: "webhooks.stripe.>", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Minute, MaxDeliver: -1, MaxAckPending: 100000}); err != nil {
		t.Fatal(err)
	}
	code, out := w.check(t)
	for _, want := range []string{"FAIL  streams: WEBHOOKS differs in duplicate_window, max_age — run `nats stream edit WEBHOOKS", "FAIL  streams: WEBHOOKS > billing differs in ack_wait"} {
		if code != 1 || !strings.Contains(out, want) {
			t.Errorf("exit %d, no %q:\n%s", code, want, out)
		}
	}
}

func TestCheckIsCalled(t *testing.T) {
	s := natstest.New(t, natstest.LazySync)
	w := newWorld(s)
	code, out := w.check(t, "--json")
	var said struct {
		OK       bool
		Findings []daemon.Finding
	}
	if err := json.Unmarshal([]byte(out), &said); err != nil || code != 0 || !said.OK || len(said.Findings) < 8 {
		t.Errorf("exit %d, %v:\n%s", code, err, out)
	}
	if code, out := w.check(t, "-h"); code != 0 || !strings.Contains(out, "exit\ncode is 1") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	for _, wrong := range [][]string{{"nats"}, {"--all"}} {
		if code, out := w.check(t, wrong...); code != 2 || strings.Count(out, "\n") != 1 {
			t.Errorf("%v: exit %d: %s", wrong, code, out)
		}
	}
}
