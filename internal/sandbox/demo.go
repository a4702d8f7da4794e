package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/phone"
	"leadpipe/internal/sandbox/meta"
	"leadpipe/internal/webhook/facebook"
	"leadpipe/internal/webhook/stripe"
	webhooktwilio "leadpipe/internal/webhook/twilio"
)

// An effect is something that a webhook must cause.
type effect struct {
	what string
	seen func(w world) bool
}

// world is what can be seen from outside: the spreadsheet, the phones, Twilio's list.
type world struct {
	tabs    map[string][][]string
	texts   []string // "to: body"
	blocked []string
}

// cell finds a row by its key in a tab, and a column by its header.
func (w world) cell(tab, key, column string) string {
	rows := w.tabs[tab]
	if len(rows) == 0 {
		return ""
	}
	i := slices.Index(rows[0], column)
	for _, r := range rows[1:] {
		if len(r) > i && i >= 0 && r[0] == key {
			return r[i]
		}
	}
	return ""
}

// The people and things of contracts/'s examples.
const (
	demoLead         = "1234567890123456"
	demoPhone        = "+33639980102"
	welcomeFragment  = "merci pour votre demande"
	confirmationText = "Vous êtes désabonné. Plus de SMS."
)

// A step is one example webhook and what it must cause.
type step struct {
	file    string
	effects func(ids story) []effect
}

// story names the ids that the examples use.
type story struct{ customer, subscription string }

func row(tab, key, column, want string) effect {
	return effect{fmt.Sprintf("%s row, %s = %s", tab, column, want), func(w world) bool { return w.cell(tab, key, column) == want }}
}

func texted(part string) effect {
	return effect{"SMS “…" + part + "…”", func(w world) bool {
		return slices.ContainsFunc(w.texts, func(t string) bool { return strings.Contains(t, part) })
	}}
}

// steps is the story in the order in which it happens.
func steps() []step {
	return []step{
		{"facebook_leadgen.json", func(story) []effect {
			return []effect{row("Leads", demoLead, "phone", demoPhone), texted(welcomeFragment), row("Leads", demoLead, "status", "contacted")}
		}},
		{"stripe_checkout_session_completed.json", func(s story) []effect {
			return []effect{row("Clients", s.customer, "status", "client"), row("Clients", s.customer, "lead_id", demoLead),
				row("Leads", demoLead, "status", "client"), row("Leads", demoLead, "customer_id", s.customer)}
		}},
		{"stripe_subscription_created.json", func(s story) []effect {
			return []effect{row("Clients", s.customer, "subscription_id", s.subscription), row("Clients", s.customer, "access", "active")}
		}},
		{"stripe_payment_succeeded.json", func(s story) []effect {
			return []effect{row("Clients", s.customer, "failed_attempts", "0")}
		}},
		{"stripe_subscription_updated.json", func(s story) []effect {
			return []effect{row("Clients", s.customer, "status", "past_due")}
		}},
		{"stripe_payment_failed.json", func(s story) []effect {
			return []effect{row("Clients", s.customer, "failed_attempts", "1"), texted("paiement")}
		}},
		{"stripe_subscription_deleted.json", func(s story) []effect {
			return []effect{row("Churn", s.subscription, "customer_id", s.customer), row("Clients", s.customer, "access", "stopped"),
				row("Clients", s.customer, "status", "churned")}
		}},
		{"sms_inbound.example.json", func(story) []effect {
			return []effect{texted(confirmationText), row("Opt-outs", demoPhone, "keyword", "STOP"), row("Leads", demoLead, "status", "opted_out"),
				{"on Twilio's block list", func(w world) bool { return slices.Contains(w.blocked, demoPhone) }}}
		}},
	}
}

// Demo sends the example webhooks through the edge, one after the other, waits for what
// each must cause, and prints it. An error names the effects that did not come.
func (s *Sandbox) Demo(ctx context.Context, out io.Writer) error {
	s.AddDemoLead()
	ids, err := readStory()
	if err != nil {
		return err
	}
	var missing []string
	for i, st := range steps() {
		before, err := s.world()
		if err != nil {
			return err
		}
		seq, err := s.lastSequence(ctx)
		if err != nil {
			return err
		}
		subject, status, err := s.SendExample(ctx, st.file)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(out, "\n%d  %s → %d\n   subject  %s\n", i+1, st.file, status, subject)
		if status != http.StatusOK {
			return fmt.Errorf("%s was answered %d", st.file, status)
		}
		late := s.await(ctx, st.effects(ids))
		if err := s.settled(ctx); err != nil {
			return err
		}
		if err := s.report(ctx, out, before, seq, st.effects(ids), late); err != nil {
			return err
		}
		for _, e := range late {
			missing = append(missing, st.file+": "+e.what)
		}
		select {
		case err := <-s.failed:
			return err
		default:
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("effects missing: %s", strings.Join(missing, "; "))
	}
	w, err := s.world()
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "\n%d webhooks, %d SMS, %d on the block list. The spreadsheet:\n", len(steps()), len(w.texts), len(w.blocked))
	for _, tab := range []string{"Leads", "Clients", "Churn", "Opt-outs", "Incidents"} {
		_, _ = fmt.Fprintf(out, "\n   %s\n", tab)
		for _, r := range w.tabs[tab] {
			_, _ = fmt.Fprintf(out, "     %s\n", strings.Join(r, " | "))
		}
	}
	return nil
}

// AddDemoLead makes Meta know the lead of the example webhook.
func (s *Sandbox) AddDemoLead() {
	s.Meta.AddLead(meta.Lead{
		ID: demoLead, CreatedTime: time.Now(), PageID: "100000000000101", FormID: "100000000000202", Platform: "fb",
		Fields: []meta.Field{
			{Name: "full_name", Values: []string{"Camille Martin"}}, {Name: "email", Values: []string{"camille@example.com"}},
			{Name: "phone_number", Values: []string{"06 39 98 01 02"}}, {Name: "quel_est_votre_projet_?", Values: []string{"Un site vitrine"}},
		},
	})
}

// await waits for effects and gives those that did not come.
func (s *Sandbox) await(ctx context.Context, effects []effect) []effect {
	deadline := time.Now().Add(s.Wait)
	for {
		w, err := s.world()
		var left []effect
		for _, e := range effects {
			if err != nil || !e.seen(w) {
				left = append(left, e)
			}
		}
		if len(left) == 0 || ctx.Err() != nil || time.Now().After(deadline) {
			return left
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// settled waits until no consumer has work, so that a report is complete.
func (s *Sandbox) settled(ctx context.Context) error {
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		if !s.Busy(ctx) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return ctx.Err()
}

// Busy says whether any durable has messages that are not settled. A durable that does
// not exist has none; one that can't be asked about counts as busy.
func (s *Sandbox) Busy(ctx context.Context) bool {
	for stream, names := range map[string][]string{
		contracts.StreamWebhooks: {contracts.Billing, contracts.Leads, contracts.Optouts},
		contracts.StreamCRM:      {contracts.SMSSender, contracts.Blacklist, contracts.Sheets},
	} {
		for _, n := range names {
			settled, err := bus.Settled(ctx, s.JS, stream, n)
			if errors.Is(err, jetstream.ErrConsumerNotFound) {
				continue
			}
			if err != nil || !settled {
				return true
			}
		}
	}
	return false
}

// report prints the records that changed and the effects that came.
func (s *Sandbox) report(ctx context.Context, out io.Writer, before world, seq uint64, expected, late []effect) error {
	var keys []string
	if err := bus.Scan(ctx, s.JS, func(string) bool { return true }, func(m contracts.Message) error {
		if m.Sequence > seq {
			keys = append(keys, contracts.KeyOfSubject(m.Subject))
		}
		return nil
	}); err != nil {
		return err
	}
	slices.Sort(keys)
	_, _ = fmt.Fprintf(out, "   records  %s\n", strings.Join(keys, "\n            "))
	after, err := s.world()
	if err != nil {
		return err
	}
	for _, t := range after.texts[len(before.texts):] {
		_, _ = fmt.Fprintf(out, "   SMS      %s\n", t)
	}
	for _, b := range after.blocked[len(before.blocked):] {
		_, _ = fmt.Fprintf(out, "   blocked  %s at Twilio\n", phone.Mask(b))
	}
	for _, e := range expected {
		mark := "✓"
		if slices.ContainsFunc(late, func(l effect) bool { return l.what == e.what }) {
			mark = "✗ missing:"
		}
		_, _ = fmt.Fprintf(out, "   %s %s\n", mark, e.what)
	}
	return nil
}

func (s *Sandbox) lastSequence(ctx context.Context) (uint64, error) {
	st, err := s.JS.Stream(ctx, contracts.StreamCRM)
	if err != nil {
		return 0, fmt.Errorf("asking for the bucket: %w", err)
	}
	return st.CachedInfo().State.LastSeq, nil
}

func (s *Sandbox) world() (world, error) {
	w := world{tabs: map[string][][]string{}}
	for _, tab := range []string{"Leads", "Clients", "Churn", "Opt-outs", "Incidents"} {
		w.tabs[tab] = s.Google.Rows(tab)
	}
	for _, m := range s.Twilio.Messages() {
		w.texts = append(w.texts, phone.Mask(m.To)+": "+m.Body)
	}
	for _, c := range s.Twilio.Consents() {
		if c.Status == "opt-out" {
			w.blocked = append(w.blocked, c.ContactID)
		}
	}
	return w, nil
}

// readStory takes the ids out of the examples.
func readStory() (story, error) {
	var e struct {
		Data struct {
			Object struct {
				ID       string `json:"id"`
				Customer string `json:"customer"`
			} `json:"object"`
		} `json:"data"`
	}
	data, err := contracts.Examples.ReadFile("stripe_subscription_created.json")
	if err != nil {
		return story{}, fmt.Errorf("reading an example: %w", err)
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return story{}, fmt.Errorf("reading an example: %w", err)
	}
	return story{customer: e.Data.Object.Customer, subscription: e.Data.Object.ID}, nil
}

// SendExample signs an example as its provider does and sends it to the edge. Its
// times are moved so that it happens now. subject is where the edge publishes it.
func (s *Sandbox) SendExample(ctx context.Context, file string) (subject string, status int, err error) {
	body, err := contracts.Examples.ReadFile(file)
	if err != nil {
		return "", 0, fmt.Errorf("reading an example: %w", err)
	}
	header := map[string]string{"Content-Type": contracts.ContentJSON}
	path := ""
	switch {
	case strings.HasPrefix(file, "stripe_"):
		var e struct {
			Type    string `json:"type"`
			Created int64  `json:"created"`
		}
		if err := json.Unmarshal(body, &e); err != nil {
			return "", 0, fmt.Errorf("reading %s: %w", file, err)
		}
		body = retime(body, time.Now().Unix()-e.Created)
		path, subject = "/api/webhooks/stripe", contracts.SubjectStripe(e.Type)
		header["Stripe-Signature"] = stripe.Sign(body, time.Now(), StripeSecret)
	case strings.HasPrefix(file, "facebook_"):
		path, subject = "/api/webhooks/facebook", contracts.SubjectFacebookLeadgen
		header["X-Hub-Signature-256"] = facebook.Sign(body, AppSecret)
	default:
		var form map[string]string
		if err := json.Unmarshal(body, &form); err != nil {
			return "", 0, fmt.Errorf("reading %s: %w", file, err)
		}
		values := url.Values{}
		for k, v := range form {
			values.Set(k, v)
		}
		body = []byte(values.Encode())
		path, subject = webhooktwilio.InboundPath, contracts.SubjectOptOut(strings.TrimPrefix(form["From"], "+"))
		header["Content-Type"] = "application/x-www-form-urlencoded"
		header["X-Twilio-Signature"] = webhooktwilio.Sign(TwilioToken, s.EdgeURL+path, form)
	}
	status, err = s.post(ctx, path, header, body)
	return subject, status, err
}

// unixTime is a number in an example that is a time: seconds between 2020 and 2033.
var unixTime = regexp.MustCompile(`([:\[,]\s*)(1[6-9]\d{8})\b`)

// retime moves every time in an example by some seconds.
func retime(body []byte, by int64) []byte {
	return unixTime.ReplaceAllFunc(body, func(m []byte) []byte {
		parts := unixTime.FindSubmatch(m)
		at, err := strconv.ParseInt(string(parts[2]), 10, 64)
		if err != nil {
			return m
		}
		return append(slices.Clone(parts[1]), strconv.AppendInt(nil, at+by, 10)...)
	})
}
