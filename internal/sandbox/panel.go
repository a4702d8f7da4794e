package sandbox

import (
	"cmp"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/console"
	"leadpipe/internal/daemon/consumersd"
)

//go:embed panel
var panelFiles embed.FS

// Page serves the console, with a panel that plays the providers, until ctx ends or a
// program of the pipeline does.
func (s *Sandbox) Page(ctx context.Context, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("SANDBOX_ADDR: %w", err)
	}
	c, err := console.New(console.Options{JS: s.JS, Addr: l.Addr().String(), Panel: s.panel(), Trace: consumersd.Search(s.JS, "FR")})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- c.Serve(ctx, l) }()
	select {
	case err := <-s.failed:
		cancel()
		return errors.Join(err, <-served)
	case err := <-served:
		return err
	}
}

// actions are what a visitor can do, by name. Each gives the nats command that shows
// what came of it, without the server's address.
func (s *Sandbox) actions() map[string]func(context.Context, *http.Request) (string, error) {
	person := func(do func(context.Context, *someone, *http.Request) (string, error)) func(context.Context, *http.Request) (string, error) {
		return func(ctx context.Context, r *http.Request) (string, error) {
			p, err := s.people.find(r.FormValue("who"))
			if err != nil {
				return "", err
			}
			p.mu.Lock() // one thing after the other happens to a person
			defer p.mu.Unlock()
			return do(ctx, p, r)
		}
	}
	return map[string]func(context.Context, *http.Request) (string, error){
		"lead": func(ctx context.Context, r *http.Request) (string, error) {
			p := newSomeone(r.FormValue("name"), r.FormValue("phone"))
			if err := took(s.sendLeads(ctx, p.lead)); err != nil {
				return "", err
			}
			s.people.add(p)
			return "kv get crm " + contracts.KeyLead(p.lead.ID), nil
		},
		"pay":    person(s.pay),
		"change": person(s.changePlan),
		"fail": person(func(ctx context.Context, p *someone, r *http.Request) (string, error) {
			n, err := strconv.Atoi(cmp.Or(r.FormValue("times"), "1"))
			if err != nil || n < 1 || n > 3 {
				return "", errors.New("times: 1, 2 or 3")
			}
			return s.failPayment(ctx, p, n)
		}),
		"payagain": person(s.payAgain),
		"cancel":   person(s.cancelPlan),
		"text": person(func(ctx context.Context, p *someone, r *http.Request) (string, error) {
			return s.text(ctx, p, r.FormValue("body"))
		}),
		"again":     func(ctx context.Context, _ *http.Request) (string, error) { return s.again(ctx, 10) },
		"backwards": func(ctx context.Context, _ *http.Request) (string, error) { return s.backwards(ctx, 5) },
		"consumer": func(_ context.Context, r *http.Request) (string, error) {
			name := r.FormValue("name")
			return consumerInfo(name), s.switchConsumer(name, r.FormValue("on") == "true")
		},
		"provider": func(_ context.Context, r *http.Request) (string, error) {
			waits := map[string]string{"Meta": contracts.Leads, "Twilio": contracts.SMSSender, "Google": contracts.Sheets}
			name := r.FormValue("name")
			return consumerInfo(waits[name]), s.switchVendor(name, r.FormValue("on") == "true")
		},
	}
}

// consumerInfo is the command that shows how far a durable is.
func consumerInfo(durable string) string {
	if slices.Contains([]string{contracts.SMSSender, contracts.Blacklist, contracts.Sheets}, durable) {
		return "consumer info " + contracts.StreamCRM + " " + durable
	}
	return "consumer info " + contracts.StreamWebhooks + " " + durable
}

// took turns an answer of the edge into an error where it is not 200.
func took(status int, err error) error {
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("the edge answered %d", status)
	}
	return err
}

// panel serves what the page's panel needs. The console guards it.
func (s *Sandbox) panel() http.Handler {
	mux := http.NewServeMux()
	for name, kind := range map[string]string{"panel.js": "text/javascript; charset=utf-8", "panel.css": "text/css; charset=utf-8"} {
		data, err := panelFiles.ReadFile("panel/" + name)
		if err != nil {
			panic("sandbox: " + err.Error()) // embedded
		}
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			_, _ = w.Write(data)
		})
	}
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, s.scene()) })
	actions := s.actions()
	mux.HandleFunc("POST /do/{action}", func(w http.ResponseWriter, r *http.Request) {
		do := actions[r.PathValue("action")]
		if do == nil {
			http.NotFound(w, r)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
		ctx, cancel := context.WithTimeout(r.Context(), 60*time.Second)
		defer cancel()
		command, err := do(ctx, r)
		if err != nil {
			reply(w, http.StatusConflict, map[string]string{"error": err.Error()})
			return
		}
		words := strings.Fields(command)
		for i, word := range words {
			if strings.ContainsAny(word, ">*$") {
				words[i] = "'" + word + "'" // as a shell needs it
			}
		}
		reply(w, http.StatusOK, map[string]string{"command": "nats --server " + s.NATS.UserURL("operator") + " " + strings.Join(words, " ")})
	})
	return mux
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// Of each list the page shows the newest this many.
const mostShown = 50

// A scene is the world as its people see it: their phones, the spreadsheet, the block
// list, and what runs.
type scene struct {
	People    []personView `json:"people"`
	Texts     []textView   `json:"texts"`
	Tabs      []tabView    `json:"tabs"`
	Blocked   []string     `json:"blocked"`
	Consumers []switchView `json:"consumers"`
	Vendors   []switchView `json:"vendors"`
	Last      []string     `json:"last"` // the webhooks that were sent, newest first
}

type personView struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Phone  string `json:"phone"`
	Client bool   `json:"client"`
	Owes   bool   `json:"owes"`
}

type textView struct {
	Phone  string `json:"phone"`
	Mine   bool   `json:"mine"` // written by the phone's owner
	Body   string `json:"body"`
	Status string `json:"status,omitempty"`
	At     int64  `json:"at"`
}

type tabView struct {
	Name string     `json:"name"`
	Rows [][]string `json:"rows"`
	More int        `json:"more,omitempty"` // rows that are left out
}

type switchView struct {
	Name string `json:"name"`
	On   bool   `json:"on"`
}

func (s *Sandbox) scene() scene {
	v := scene{People: s.people.view(), Texts: s.people.texts(), Blocked: []string{}, Consumers: s.consumerSwitches(), Vendors: s.vendorSwitches(), Last: s.sentLately()}
	for _, m := range s.Twilio.Messages() {
		v.Texts = append(v.Texts, textView{Phone: m.To, Body: m.Body, Status: m.Status, At: m.Began.UnixMilli()})
	}
	slices.SortStableFunc(v.Texts, func(a, b textView) int { return cmp.Compare(a.At, b.At) })
	v.Texts = v.Texts[max(0, len(v.Texts)-mostShown):]
	for _, name := range []string{"Leads", "Clients", "Churn", "Opt-outs", "Incidents"} {
		rows := s.Google.Rows(name)
		tab := tabView{Name: name, Rows: rows}
		if len(rows) > mostShown+1 {
			tab.More = len(rows) - mostShown - 1
			tab.Rows = append([][]string{rows[0]}, rows[len(rows)-mostShown:]...)
		}
		v.Tabs = append(v.Tabs, tab)
	}
	for _, c := range s.Twilio.Consents() {
		if c.Status == "opt-out" {
			v.Blocked = append(v.Blocked, c.ContactID)
		}
	}
	return v
}
