package sandbox

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/sandbox/meta"
	"leadpipe/internal/sandbox/twilio"
	"leadpipe/internal/webhook/facebook"
)

//go:embed page.html
var page []byte

// Page serves a page that drives the sandbox, until ctx ends or a program of the
// pipeline does.
func (s *Sandbox) Page(ctx context.Context, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("SANDBOX_ADDR: %w", err)
	}
	server := &http.Server{Handler: s.pageHandler(), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() { _ = server.Close() }()
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	case err := <-served:
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return err
	}
}

func (s *Sandbox) pageHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page)
	})
	// What is there now: the spreadsheet, the phones, the bucket's keys.
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, r *http.Request) {
		state, err := s.world()
		keys := map[string]json.RawMessage{}
		if err == nil {
			err = bus.Scan(r.Context(), s.JS, func(string) bool { return true }, func(m contracts.Message) error {
				if len(m.Data) > 0 {
					keys[contracts.KeyOfSubject(m.Subject)] = m.Data
				}
				return nil
			})
		}
		reply(w, map[string]any{"tabs": state.tabs, "texts": state.texts, "blocked": state.blocked, "records": keys}, err)
	})
	// One of contracts/'s examples, as its provider sends it.
	mux.HandleFunc("POST /example/{file}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("file") == "facebook_leadgen.json" {
			s.AddDemoLead()
		}
		subject, status, err := s.SendExample(r.Context(), r.PathValue("file"))
		reply(w, map[string]any{"subject": subject, "status": status}, err)
	})
	// Somebody fills in a form.
	mux.HandleFunc("POST /lead", func(w http.ResponseWriter, r *http.Request) {
		status, err := s.SendLead(r.Context(), r.FormValue("name"), r.FormValue("phone"), r.FormValue("email"))
		reply(w, map[string]any{"status": status}, err)
	})
	// Somebody texts us.
	mux.HandleFunc("POST /text", func(w http.ResponseWriter, r *http.Request) {
		answer, err := s.Twilio.Inbound(r.Context(), twilio.Inbound{From: r.FormValue("from"), Body: r.FormValue("body")})
		reply(w, map[string]any{"status": answer.Status}, err)
	})
	return mux
}

// SendLead has somebody fill in a form: Meta then knows the lead and tells the edge.
func (s *Sandbox) SendLead(ctx context.Context, name, phone, email string) (status int, err error) {
	return s.sendLeads(ctx, newLead(name, phone, email))
}

// SendLeads has n people fill in a form at once, with numbers of their own from the
// first-th of a fictional range on; Meta tells of them in one body.
func (s *Sandbox) SendLeads(ctx context.Context, first, n int) (status int, err error) {
	leads := make([]meta.Lead, n)
	for i := range leads {
		leads[i] = newLead("Zoé Martin", fmt.Sprintf("+336399%05d", first+i), fmt.Sprintf("zoe%d@example.com", first+i))
	}
	return s.sendLeads(ctx, leads...)
}

func newLead(name, phone, email string) meta.Lead {
	return meta.Lead{
		ID: strconv.FormatInt(1e15+rand.Int64N(8e15), 10), CreatedTime: time.Now(), PageID: "100000000000101", FormID: "100000000000202", Platform: "fb",
		Fields: []meta.Field{{Name: "full_name", Values: []string{name}}, {Name: "phone_number", Values: []string{phone}}, {Name: "email", Values: []string{email}}},
	}
}

func (s *Sandbox) sendLeads(ctx context.Context, leads ...meta.Lead) (status int, err error) {
	for _, l := range leads {
		s.Meta.AddLead(l)
	}
	body := meta.Webhook(meta.AsStrings, leads...)
	return s.post(ctx, "/api/webhooks/facebook", map[string]string{
		"Content-Type": contracts.ContentJSON, "X-Hub-Signature-256": facebook.Sign(body, AppSecret)}, body)
}

func reply(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		v = map[string]string{"error": err.Error()}
	}
	_ = json.NewEncoder(w).Encode(v)
}
