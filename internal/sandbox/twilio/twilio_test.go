package twilio_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/twilio/twilio-go/client"
	accounts "github.com/twilio/twilio-go/rest/accounts/v1"
	api "github.com/twilio/twilio-go/rest/api/v2010"
	"go.uber.org/goleak"

	"leadpipe/internal/sandbox/twilio"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	account = "AC00000000000000000000000000000001"
	token   = "0123456789abcdef"
	service = "MG00000000000000000000000000000001"
	alice   = "+33639980001"
	bob     = "+33639980002"
)

// A rig is the stand-in behind a listener, and Twilio's own client pointed at it.
type rig struct {
	*twilio.Server
	URL      string
	messages *api.ApiService
	consents *accounts.ApiService
}

// A redirect sends every request to one address. Twilio's client leaves the body of
// an error answer open, which would keep a connection and a goroutine: the body is
// read here, and the time limit is kept here too.
type redirect struct {
	to      *url.URL
	timeout time.Duration
}

func (rt redirect) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(r.Context(), rt.timeout)
	defer cancel()
	r = r.Clone(ctx)
	r.URL.Scheme, r.URL.Host = rt.to.Scheme, rt.to.Host
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

func start(t *testing.T, opt twilio.Options) rig {
	t.Helper()
	opt.AccountSID, opt.AuthToken = account, token
	s, err := twilio.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(s)
	t.Cleanup(func() {
		s.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		ts.Close()
	})
	messages, consents := clients(t, ts.URL, token, 5*time.Second)
	return rig{s, ts.URL, messages, consents}
}

func clients(t *testing.T, to, password string, timeout time.Duration) (*api.ApiService, *accounts.ApiService) {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	c := &client.Client{
		Credentials: client.NewCredentials(account, password),
		HTTPClient:  &http.Client{Transport: redirect{u, timeout}},
	}
	c.SetAccountSid(account)
	h := client.NewRequestHandler(c)
	return api.NewApiService(h), accounts.NewApiService(h)
}

func text(to, body string) *api.CreateMessageParams {
	return (&api.CreateMessageParams{}).SetTo(to).SetFrom("LEADPIPE").SetBody(body)
}

// wantError checks an error's HTTP status and code.
func wantError(t *testing.T, err error, status, code int) {
	t.Helper()
	var rest *client.TwilioRestError
	if !errors.As(err, &rest) || rest.Status != status || rest.Code != code {
		t.Errorf("error %v; want HTTP %d with code %d", err, status, code)
	}
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}

func TestSend(t *testing.T) {
	t.Parallel()
	s := start(t, twilio.Options{})
	before := time.Now()
	direct, err := s.messages.CreateMessage(text(alice, "Bonjour").SetValidityPeriod(60))
	if err != nil {
		t.Fatal(err)
	}
	served, err := s.messages.CreateMessage((&api.CreateMessageParams{}).SetTo(bob).SetMessagingServiceSid(service).SetBody("Bonjour"))
	if err != nil {
		t.Fatal(err)
	}
	if *direct.Status != "queued" || *direct.From != "LEADPIPE" || *direct.NumSegments != "1" || direct.DateSent != nil {
		t.Errorf("direct send: status %s, from %s, segments %s", *direct.Status, *direct.From, *direct.NumSegments)
	}
	if *served.Status != "accepted" || served.From != nil || *served.NumSegments != "0" || *served.MessagingServiceSid != service {
		t.Errorf("send through a service: status %s, from %v, segments %s", *served.Status, served.From, *served.NumSegments)
	}
	if created, err := time.Parse(time.RFC1123Z, *direct.DateCreated); err != nil || time.Since(created) > time.Minute {
		t.Errorf("date_created %q is not a recent RFC 2822 date: %v", *direct.DateCreated, err)
	}

	kept := s.Messages()
	if len(kept) != 2 || kept[0].SID != *direct.Sid || kept[0].To != alice || kept[0].Body != "Bonjour" || kept[0].ValidityPeriod != 60 {
		t.Fatalf("kept %+v", kept)
	}
	if kept[0].Began.Before(before) || kept[0].Accepted.Before(kept[0].Began) {
		t.Error("the times of the call are not in order")
	}
	calls := s.Calls()
	if len(calls) != 2 || calls[1].SID != *served.Sid || calls[1].Status != 201 || calls[1].To != bob {
		t.Errorf("calls %+v", calls)
	}

	got, err := s.messages.FetchMessage(*served.Sid, nil)
	if err != nil {
		t.Fatal(err)
	}
	if *got.Status != "delivered" || *got.From != "38998" || got.DateSent == nil {
		t.Errorf("later: status %s, from %s, sent %v", *got.Status, *got.From, got.DateSent)
	}
	_, err = s.messages.FetchMessage("SM00000000000000000000000000000000", nil)
	wantError(t, err, 404, 20404)
}

func TestSendRefused(t *testing.T) {
	t.Parallel()
	s := start(t, twilio.Options{
		MagicNumbers: true,
		Reject: func(to string) (int, int) {
			if to == bob {
				return 400, 21408
			}
			return 0, 0
		},
	})
	s.Block("+33639980003")
	cases := map[string]struct {
		params       *api.CreateMessageParams
		status, code int
	}{
		"no recipient":           {(&api.CreateMessageParams{}).SetFrom("LEADPIPE").SetBody("x"), 400, 21604},
		"junk recipient":         {text("0639980001", "x"), 400, 21211},
		"no sender":              {(&api.CreateMessageParams{}).SetTo(alice).SetBody("x"), 400, 21603},
		"sender without letters": {text(alice, "x").SetFrom("é!"), 400, 21212},
		"unknown service":        {text(alice, "x").SetMessagingServiceSid("MG1"), 400, 21701},
		"no body":                {(&api.CreateMessageParams{}).SetTo(alice).SetFrom("LEADPIPE"), 400, 21602},
		"body too long":          {text(alice, strings.Repeat("é", 1601)), 400, 21617},
		"callback not a URL":     {text(alice, "x").SetStatusCallback("localhost"), 400, 21609},
		"callback with _ host":   {text(alice, "x").SetStatusCallback("https://a_b.example.com/"), 400, 21609},
		"validity of 0":          {text(alice, "x").SetValidityPeriod(0), 400, 90014},
		"validity over 10 h":     {text(alice, "x").SetValidityPeriod(36001), 400, 90007},
		"rejected by option":     {text(bob, "x"), 400, 21408},
		"blocked":                {text("+33639980003", "x"), 400, 21610},
		"magic 1614":             {text("+33639981614", "x"), 400, 21614},
		"magic 0429":             {text("+33639980429", "x"), 429, 20429},
	}
	for name, c := range cases {
		_, err := s.messages.CreateMessage(c.params)
		t.Run(name, func(t *testing.T) { wantError(t, err, c.status, c.code) })
	}
	if n := len(s.Messages()); n != 0 {
		t.Errorf("%d messages came into being", n)
	}
	if n := len(s.Calls()); n != len(cases) {
		t.Errorf("%d calls recorded, want %d", n, len(cases))
	}

	req, err := http.NewRequest(http.MethodPost, s.URL+"/2010-04-01/Accounts/"+account+"/Messages.json",
		strings.NewReader(url.Values{"To": {alice}, "From": {"LEADPIPE"}, "Body": {"x"}, "StatusCallBack": {"https://example.com"}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(account, token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 400 {
		t.Errorf("a misspelt parameter was answered %d", resp.StatusCode)
	}
}

func TestCredentialsAndPaths(t *testing.T) {
	t.Parallel()
	s := start(t, twilio.Options{})
	wrong, wrongConsents := clients(t, s.URL, "wrong", time.Second)
	_, err := wrong.CreateMessage(text(alice, "x"))
	wantError(t, err, 401, 20003)
	_, err = wrong.ListMessage(nil)
	wantError(t, err, 401, 20003)
	_, err = wrongConsents.CreateBulkConsents(nil)
	wantError(t, err, 401, 20003)
	_, err = s.messages.CreateMessage(text(alice, "x").SetPathAccountSid("AC2"))
	wantError(t, err, 404, 20404)
	_, err = s.messages.ListCall((&api.ListCallParams{}).SetLimit(1))
	wantError(t, err, 404, 20404)
	err = s.messages.DeleteMessage("SM1", nil)
	wantError(t, err, 405, 20004)
	if len(s.Calls()) != 2 {
		t.Errorf("%d calls recorded, want the two refused sends", len(s.Calls()))
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	var fault atomic.Value
	s := start(t, twilio.Options{Fault: func(c twilio.Call) twilio.Fault { return fault.Load().(twilio.Fault) }})
	impatient, _ := clients(t, s.URL, token, 300*time.Millisecond)
	for i, f := range twilio.Faults() {
		fault.Store(f)
		_, err := impatient.CreateMessage(text(fmt.Sprintf("+3363998%04d", i), "x"))
		if err == nil {
			t.Errorf("%s: the client saw no error", f)
		}
		var rest *client.TwilioRestError
		if f == twilio.TooMany {
			wantError(t, err, 429, 20429)
		} else if errors.As(err, &rest) {
			t.Errorf("%s: the client got a Twilio error document: %v", f, err)
		}
		kept := slices.ContainsFunc(s.Messages(), func(m twilio.Message) bool { return m.To == fmt.Sprintf("+3363998%04d", i) })
		if want := strings.HasSuffix(string(f), "_after"); kept != want || f.Leaves() != want {
			t.Errorf("%s: message kept %v, Leaves %v, want %v", f, kept, f.Leaves(), want)
		}
		call := s.Calls()[i]
		if call.Fault != f || (call.SID != "") != kept {
			t.Errorf("%s: recorded as %+v", f, call)
		}
	}
	// A refusal is not hidden.
	fault.Store(twilio.HangUpAfter)
	_, err := impatient.CreateMessage(text("junk", "x"))
	wantError(t, err, 400, 21211)
}

func TestFaultRateIsRepeatable(t *testing.T) {
	t.Parallel()
	run := func(seed uint64) (out []twilio.Fault) {
		s := start(t, twilio.Options{Seed: seed, FaultRate: 0.5, Faults: []twilio.Fault{twilio.Error503After, twilio.GarbageAfter, twilio.HangUpBefore}})
		for range 30 {
			_, _ = s.messages.CreateMessage(text(alice, "x")) // the faults are recorded
		}
		for _, c := range s.Calls() {
			out = append(out, c.Fault)
		}
		return out
	}
	first := run(1)
	if d := gocmp.Diff(first, run(1)); d != "" {
		t.Errorf("the same seed gave other faults:\n%s", d)
	}
	if gocmp.Equal(first, run(2)) {
		t.Error("another seed gave the same faults")
	}
	if n := len(slices.DeleteFunc(first, func(f twilio.Fault) bool { return f == "" })); n < 5 || n > 25 {
		t.Errorf("%d faults in 30 calls at a rate of one half", n)
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	s := start(t, twilio.Options{Rate: 0.001, Burst: 3})
	for range 3 {
		if _, err := s.messages.CreateMessage(text(alice, "x")); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.messages.CreateMessage(text(alice, "x"))
	wantError(t, err, 429, 20429)
	if len(s.Messages()) != 3 {
		t.Errorf("%d messages, want 3", len(s.Messages()))
	}
}

func TestLatency(t *testing.T) {
	t.Parallel()
	s := start(t, twilio.Options{MinLatency: 40 * time.Millisecond, MaxLatency: 60 * time.Millisecond})
	began := time.Now()
	if _, err := s.messages.CreateMessage(text(alice, "x")); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	m := s.Messages()[0]
	if took < 40*time.Millisecond || m.Accepted.Sub(m.Began) < 20*time.Millisecond {
		t.Errorf("call took %v, and %v until accepted", took, m.Accepted.Sub(m.Began))
	}
}

func TestListPagesNewestFirst(t *testing.T) {
	t.Parallel()
	s := start(t, twilio.Options{})
	var want []string
	for i := range 7 {
		m, err := s.messages.CreateMessage(text(alice, fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.messages.CreateMessage(text(bob, "x")); err != nil {
			t.Fatal(err)
		}
		want = append([]string{*m.Sid}, want...)
	}
	for _, size := range []int{1, 2, 3, 7, 50} {
		got, err := s.messages.ListMessage((&api.ListMessageParams{}).SetTo(alice).SetPageSize(size))
		if err != nil {
			t.Fatal(err)
		}
		var sids []string
		for _, m := range got {
			sids = append(sids, *m.Sid)
		}
		if d := gocmp.Diff(want, sids); d != "" {
			t.Errorf("pages of %d (-want +got):\n%s", size, d)
		}
	}
	page, err := s.messages.PageMessage((&api.ListMessageParams{}).SetPageSize(10), "", "")
	if err != nil {
		t.Fatal(err)
	}
	if len(page.Messages) != 10 || page.NextPageUri == nil || page.Start != 0 || page.End != 9 {
		t.Errorf("first page of all: %d messages, next %v, %d to %d", len(page.Messages), page.NextPageUri, page.Start, page.End)
	}
	_, err = s.messages.PageMessage(nil, "", "1")
	wantError(t, err, 400, 20001)
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	s := start(t, twilio.Options{StepDelay: time.Hour}) // accepted, never sent
	if _, err := s.messages.CreateMessage(text(alice, "x")); err != nil {
		t.Fatal(err)
	}
	sent := start(t, twilio.Options{})
	if _, err := sent.messages.CreateMessage(text(alice, "x")); err != nil {
		t.Fatal(err)
	}
	now, hour := time.Now(), time.Hour
	list := func() *api.ListMessageParams { return &api.ListMessageParams{} }
	cases := map[string]struct {
		s      rig
		params *api.ListMessageParams
		want   int
	}{
		"recipient":                     {sent, list().SetTo(alice), 1},
		"other recipient":               {sent, list().SetTo(bob), 0},
		"sender":                        {sent, list().SetFrom("LEADPIPE"), 1},
		"other sender":                  {sent, list().SetFrom("36123"), 0},
		"sent after":                    {sent, list().SetDateSentAfter(now.Add(-hour)), 1},
		"sent after, in vain":           {sent, list().SetDateSentAfter(now.Add(hour)), 0},
		"sent before":                   {sent, list().SetDateSentBefore(now.Add(hour)), 1},
		"sent before, in vain":          {sent, list().SetDateSentBefore(now.Add(-hour)), 0},
		"sent today":                    {sent, list().SetDateSent(now), 1},
		"sent the day before yesterday": {sent, list().SetDateSent(now.Add(-48 * hour)), 0},
		"not sent yet":                  {s, list().SetTo(alice), 1},
		"not sent yet, by date":         {s, list().SetTo(alice).SetDateSentAfter(now.Add(-hour)), 0},
		"not sent yet, until a date":    {s, list().SetTo(alice).SetDateSentBefore(now.Add(hour)), 0},
	}
	for name, c := range cases {
		got, err := c.s.messages.ListMessage(c.params)
		if err != nil || len(got) != c.want {
			t.Errorf("%s: %d messages, %v; want %d", name, len(got), err, c.want)
		}
	}
}

func TestListLag(t *testing.T) {
	t.Parallel()
	s := start(t, twilio.Options{ListLag: 200 * time.Millisecond})
	if _, err := s.messages.CreateMessage(text(alice, "x")); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		got, err := s.messages.ListMessage((&api.ListMessageParams{}).SetTo(alice))
		if err != nil {
			t.Fatal(err)
		}
		return len(got)
	}
	if n := count(); n != 0 {
		t.Errorf("%d messages listed at once", n)
	}
	eventually(t, "the message is listed", func() bool { return count() == 1 })
}

func item(contact, status string) map[string]any {
	return map[string]any{"contact_id": contact, "correlation_id": strings.Repeat("a", 32),
		"sender_id": service, "status": status, "source": "opt-out-message"}
}

func TestConsents(t *testing.T) {
	t.Parallel()
	s := start(t, twilio.Options{ConsentsPerMinute: 4})
	call := func(items ...any) (out []any, err error) {
		got, err := s.consents.CreateBulkConsents((&accounts.CreateBulkConsentsParams{}).SetItems(items))
		if err != nil {
			return nil, err
		}
		return (*got.Items).([]any), nil
	}
	got, err := call(item(alice, "opt-out"), item("nobody", "opt-out"), item(bob, "out"))
	if err != nil {
		t.Fatal(err)
	}
	var codes []float64
	for _, i := range got {
		codes = append(codes, i.(map[string]any)["error_code"].(float64))
	}
	if d := gocmp.Diff([]float64{0, 30646, 30646}, codes); d != "" {
		t.Errorf("codes (-want +got):\n%s", d)
	}
	if !s.Blocked(alice) || s.Blocked(bob) || len(s.Consents()) != 1 {
		t.Errorf("blocked: alice %v, bob %v; %d consents", s.Blocked(alice), s.Blocked(bob), len(s.Consents()))
	}
	_, err = s.messages.CreateMessage(text(alice, "x"))
	wantError(t, err, 400, 21610)

	if _, err := call(item(alice, "opt-in")); err != nil || s.Blocked(alice) {
		t.Errorf("opt-in: blocked %v, %v", s.Blocked(alice), err)
	}
	if _, err := call(slices.Repeat([]any{item(alice, "opt-out")}, 25)...); err != nil {
		t.Errorf("25 items: %v", err)
	}
	_, err = call(slices.Repeat([]any{item(alice, "opt-out")}, 26)...)
	wantError(t, err, 400, 20001)
	_, err = call(item(alice, "opt-out"))
	wantError(t, err, 429, 20429)
	if n := s.Count(twilio.Consents); n != 5 {
		t.Errorf("%d consent calls counted, want 5", n)
	}
}

// An edge takes webhooks as the real one would, and checks them with Twilio's own
// validator against a public name that nobody dials.
type edge struct {
	*httptest.Server
	mu     sync.Mutex
	forms  []url.Values
	answer func(w http.ResponseWriter)
}

const public = "https://hooks.example.com"

func startEdge(t *testing.T) *edge {
	t.Helper()
	e := &edge{answer: func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprint(w, "<Response/>")
	}}
	validator := client.NewRequestValidator(token)
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		params := map[string]string{}
		for k := range r.PostForm {
			params[k] = r.PostForm.Get(k)
		}
		if r.Host != "hooks.example.com" || !validator.Validate(public+r.URL.RequestURI(), params, r.Header.Get("X-Twilio-Signature")) {
			w.WriteHeader(403)
			return
		}
		e.mu.Lock()
		e.forms = append(e.forms, r.PostForm)
		e.mu.Unlock()
		e.answer(w)
	}))
	t.Cleanup(e.Close)
	return e
}

// statuses are the values of MessageStatus, in the order in which they came.
func (e *edge) statuses() (out []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range e.forms {
		out = append(out, f.Get("MessageStatus"))
	}
	return out
}

func TestStatusCallbacks(t *testing.T) {
	t.Parallel()
	walked := []string{"queued", "sent", "delivered"}
	cases := map[string]struct {
		opt     twilio.Options
		block   bool
		want    []string
		ordered bool
		code    int
	}{
		"in order":         {want: walked, ordered: true},
		"delayed":          {opt: twilio.Options{StepDelay: time.Millisecond}, want: walked, ordered: true},
		"duplicated":       {opt: twilio.Options{DuplicateCallbacks: true}, want: []string{"queued", "queued", "sent", "sent", "delivered", "delivered"}, ordered: true},
		"shuffled":         {opt: twilio.Options{ShuffleCallbacks: true, Seed: 4}, want: walked},
		"muted":            {opt: twilio.Options{MuteCallbacks: true}, ordered: true},
		"undelivered":      {opt: twilio.Options{Undelivered: func(string) int { return 30003 }}, want: []string{"queued", "sent", "undelivered"}, ordered: true, code: 30003},
		"blocked, told so": {opt: twilio.Options{BlockAsync: true}, block: true, want: []string{"failed"}, ordered: true, code: 21610},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := startEdge(t)
			c.opt.DialURL = e.URL
			s := start(t, c.opt)
			if c.block {
				s.Block(alice)
			}
			m, err := s.messages.CreateMessage((&api.CreateMessageParams{}).SetTo(alice).SetBody("x").
				SetMessagingServiceSid(service).SetStatusCallback(public + "/api/webhooks/sms/status?sms=welcome.1"))
			if err != nil {
				t.Fatal(err)
			}
			s.Close() // waits for the callbacks
			got := e.statuses()
			if !c.ordered {
				if slices.Equal(got, c.want) {
					t.Error("the callbacks came in order")
				}
				slices.SortFunc(got, func(a, b string) int { return cmp.Compare(slices.Index(walked, a), slices.Index(walked, b)) })
			}
			if d := gocmp.Diff(c.want, got); d != "" {
				t.Errorf("statuses (-want +got):\n%s", d)
			}
			for _, f := range e.forms {
				if f.Get("MessageSid") != *m.Sid || f.Get("To") != alice || f.Get("From") != "38998" {
					t.Errorf("callback %v", f)
				}
			}
			if len(s.Callbacks()) != len(c.want) {
				t.Errorf("%d callbacks recorded, want %d", len(s.Callbacks()), len(c.want))
			}
			if kept := s.Messages()[0]; kept.ErrorCode != c.code {
				t.Errorf("message ends as %s with %d, want %d", kept.Status, kept.ErrorCode, c.code)
			}
		})
	}
}

func TestInbound(t *testing.T) {
	t.Parallel()
	e := startEdge(t)
	s := start(t, twilio.Options{InboundURL: public + "/api/webhooks/sms#rc=3", DialURL: e.URL, BlockOnStop: true})
	reply, err := s.Inbound(t.Context(), twilio.Inbound{From: alice, Body: "Arrêt"})
	if err != nil || reply.Status != 200 {
		t.Fatalf("reply %+v, %v", reply, err)
	}
	f := e.forms[0]
	for _, k := range []string{"MessageSid", "SmsSid", "SmsMessageSid", "AccountSid", "From", "To", "Body",
		"NumMedia", "NumSegments", "SmsStatus", "ApiVersion", "FromCountry", "FromState", "FromCity", "FromZip",
		"ToCountry", "ToState", "ToCity", "ToZip"} {
		if !f.Has(k) {
			t.Errorf("the webhook has no %s", k)
		}
	}
	if f.Has("OptOutType") || s.Blocked(alice) {
		t.Error("Twilio took an accented French word for an opt-out")
	}
	for _, word := range []string{"stop please", " stop ", "START", "StopAll"} {
		if _, err := s.Inbound(t.Context(), twilio.Inbound{From: alice, Body: word}); err != nil {
			t.Fatal(err)
		}
		if want := word == " stop " || word == "StopAll"; s.Blocked(alice) != want {
			t.Errorf("after %q: blocked %v, want %v", word, s.Blocked(alice), want)
		}
	}
	if n := len(s.Replies()); n != 3 {
		t.Errorf("Twilio answered %d keywords by itself, want 3", n)
	}
	if _, err := s.Inbound(t.Context(), twilio.Inbound{From: bob, Body: "j'arrete", OptOutType: "STOP", MessageSID: "SM2"}); err != nil {
		t.Fatal(err)
	}
	last := e.forms[len(e.forms)-1]
	if last.Get("OptOutType") != "STOP" || last.Get("MessageSid") != "SM2" || !s.Blocked(bob) {
		t.Errorf("OptOutType %q, MessageSid %q, blocked %v", last.Get("OptOutType"), last.Get("MessageSid"), s.Blocked(bob))
	}
	// Inbound texts stay in the list, from which a lost webhook can be recovered.
	got, err := s.messages.ListMessage((&api.ListMessageParams{}).SetTo("38998"))
	if err != nil || len(got) != 6 || *got[0].Direction != "inbound" || *got[0].Sid != "SM2" {
		t.Errorf("%d inbound texts listed, %v", len(got), err)
	}
}

func TestInboundTextsBackWhatTheAnswerSays(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		kind, body string
		status     int
		want       []string
	}{
		"empty TwiML":      {"text/xml", "<?xml version=\"1.0\"?><Response></Response>", 200, nil},
		"TwiML message":    {"application/xml", "<Response><Message>Hi</Message></Response>", 200, []string{"Hi"}},
		"plain text":       {"text/plain; charset=utf-8", "ok", 200, []string{"ok"}},
		"plain text error": {"text/plain", "no", 503, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := startEdge(t)
			e.answer = func(w http.ResponseWriter) {
				w.Header().Set("Content-Type", c.kind)
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			}
			s := start(t, twilio.Options{InboundURL: public + "/sms", DialURL: e.URL})
			reply, err := s.Inbound(t.Context(), twilio.Inbound{From: alice, Body: "hello"})
			if err != nil || reply.Status != c.status {
				t.Fatalf("reply %+v, %v", reply, err)
			}
			var got []string
			for _, m := range s.Replies() {
				got = append(got, m.Body)
			}
			if d := gocmp.Diff(c.want, got); d != "" {
				t.Errorf("texts (-want +got):\n%s", d)
			}
		})
	}
}

func TestInboundWithoutAnEdge(t *testing.T) {
	t.Parallel()
	e := startEdge(t)
	e.Close()
	s := start(t, twilio.Options{InboundURL: public + "/sms", DialURL: e.URL})
	if reply, err := s.Inbound(context.Background(), twilio.Inbound{From: alice, Body: "STOP"}); err == nil {
		t.Errorf("reply %+v from nobody", reply)
	}
}

func TestSignAgreesWithTwiliosValidator(t *testing.T) {
	t.Parallel()
	form := url.Values{"Body": {"Arrêt & fin"}, "From": {alice}, "A": {""}}
	params := map[string]string{"Body": "Arrêt & fin", "From": alice, "A": ""}
	v := client.NewRequestValidator(token)
	signature := twilio.Sign(token, public+"/sms?x=1#rc=2", form)
	if !v.Validate(public+"/sms?x=1", params, signature) {
		t.Error("the signature does not verify")
	}
	if v.Validate(public+"/sms?x=2", params, signature) || twilio.Sign("other", public+"/sms?x=1", form) == signature {
		t.Error("the signature does not depend on URL and token")
	}
}

func TestSIDsAreRepeatableWithASeed(t *testing.T) {
	t.Parallel()
	first := func(seed uint64) string {
		s := start(t, twilio.Options{Seed: seed})
		m, err := s.messages.CreateMessage(text(alice, "x"))
		if err != nil {
			t.Fatal(err)
		}
		return *m.Sid
	}
	a, again, b := first(7), first(7), first(8)
	if a != again || a == b {
		t.Errorf("seeds 7, 7 and 8 gave %s, %s and %s", a, again, b)
	}
	a, b = first(0), first(0)
	if a == b {
		t.Error("without a seed two servers gave the same SID")
	}
}

func TestManySendsAtOnce(t *testing.T) {
	t.Parallel()
	s := start(t, twilio.Options{})
	began := time.Now()
	var wg sync.WaitGroup
	for w := range 20 {
		wg.Go(func() {
			for i := range 100 {
				if _, err := s.messages.CreateMessage(text(fmt.Sprintf("+3363998%02d%02d", w, i), "x")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("2000 sends in %v", time.Since(began))
	sids := map[string]bool{}
	for _, m := range s.Messages() {
		sids[m.SID] = true
	}
	if len(sids) != 2000 {
		t.Errorf("%d distinct messages, want 2000", len(sids))
	}
}

func TestNewRefusesUnusableOptions(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]twilio.Options{
		"no credentials":   {},
		"latency reversed": {AccountSID: account, AuthToken: token, MinLatency: 2, MaxLatency: 1},
		"dial URL":         {AccountSID: account, AuthToken: token, DialURL: "127.0.0.1"},
	} {
		if _, err := twilio.New(opt); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
