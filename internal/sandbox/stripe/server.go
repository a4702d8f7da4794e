// Package stripe is a stand-in for the part of Stripe's API that we read, and a maker
// of signed events. Objects are put in from Go and come back as they are: the API
// speaks one version, the one that stripe-go v76 asks for. Events can be made in
// that shape and in the one that followed basil (see Version).
package stripe

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options say how the stand-in behaves. Key is needed.
type Options struct {
	Key string // the secret API key, "sk_test_…"

	MinLatency, MaxLatency time.Duration
	// Fault picks a fault for one call; nil or "" is none. SetFault outweighs it.
	Fault func(Call) Fault
	// Seed makes latencies and request ids repeatable; 0 takes a random one.
	Seed uint64
}

// A Fault is a way for a call to go wrong. A read leaves nothing behind in any case.
type Fault string

// The faults. Stripe's client tries again by itself after all but RateLimited and
// Garbage.
const (
	RateLimited Fault = "rate_limited" // 429 with code rate_limit
	Error500    Fault = "500"          // with Stripe's error document
	Error503    Fault = "503"          // with a page of HTML
	Garbage     Fault = "garbage"      // 200 with a body that is not JSON
	HangUp      Fault = "hang_up"      // the connection closes without an answer
)

// A Call is one request to the API.
type Call struct {
	Began  time.Time // before anything was checked
	Path   string    // e.g. "/v1/subscriptions/sub_1"
	Query  url.Values
	Status int // the HTTP status answered; 0: none yet, or the connection was closed
	Fault  Fault
}

// A Server is the stand-in, an http.Handler. It is safe for concurrent use and starts
// no goroutine.
type Server struct {
	opt Options
	mux *http.ServeMux

	mu        sync.Mutex
	rng       *rand.Rand
	fault     Fault
	objects   map[string]map[string]any // by id
	events    []string                  // ids, in the order in which they were first put
	delivered map[string]bool           // by event id
	calls     []*Call
}

// New takes no address: serve the result with net/http. An error means that Options
// are unusable.
func New(opt Options) (*Server, error) {
	if opt.Key == "" {
		return nil, errors.New("stripe stand-in: an API key must be given")
	}
	if opt.MaxLatency < opt.MinLatency {
		return nil, errors.New("stripe stand-in: latency ends before it begins")
	}
	if opt.Seed == 0 {
		opt.Seed = rand.Uint64()
	}
	s := &Server{opt: opt, mux: http.NewServeMux(), rng: rand.New(rand.NewPCG(opt.Seed, 0)),
		objects: map[string]map[string]any{}, delivered: map[string]bool{}}
	for path, kind := range map[string]string{"subscriptions": "subscription", "customers": "customer",
		"invoices": "invoice", "events": "event"} {
		s.mux.HandleFunc("GET /v1/"+path+"/{id}", s.serve(func(r *http.Request) (any, *problem) {
			return s.retrieve(kind, r.PathValue("id"), r.URL.Query())
		}))
	}
	s.mux.HandleFunc("GET /v1/events", s.serve(func(r *http.Request) (any, *problem) {
		return s.listEvents(r.URL.Query())
	}))
	s.mux.HandleFunc("/", s.serve(func(r *http.Request) (any, *problem) {
		return nil, &problem{status: http.StatusNotFound, Type: "invalid_request_error",
			Message: fmt.Sprintf("unrecognized request URL (%s: %s)", r.Method, r.URL.Path)}
	}))
	return s, nil
}

// ServeHTTP answers as Stripe's API would.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Put makes an object readable under its id, or replaces it. It takes anything that
// encoding/json renders as an object with "id" and "object": a map, a
// json.RawMessage, an Event's JSON. An error says that it is no such thing. An event
// counts as undelivered until Delivered is called.
func (s *Server) Put(object any) error {
	raw, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("encoding an object: %w", err)
	}
	var o map[string]any
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	if err := d.Decode(&o); err != nil {
		return fmt.Errorf("decoding an object: %w", err)
	}
	id, _ := o["id"].(string)
	kind, _ := o["object"].(string)
	if id == "" || kind == "" {
		return errors.New("stripe stand-in: an object needs id and object")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.objects[id]; kind == "event" && !again {
		s.events = append(s.events, id)
	}
	s.objects[id] = o
	return nil
}

// Delivered says that an event's webhook was answered with 2xx, which takes it out
// of the list of undelivered events.
func (s *Server) Delivered(eventID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delivered[eventID] = true
}

// SetFault makes every call from now on meet a fault; "" ends it.
func (s *Server) SetFault(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Calls are the requests that began, oldest first.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Call, len(s.calls))
	for i, c := range s.calls {
		out[i] = *c
	}
	return out
}

// A problem is Stripe's error document.
type problem struct {
	status  int
	Type    string `json:"type"`
	Code    string `json:"code,omitempty"`
	Message string `json:"message"`
	Param   string `json:"param,omitempty"`
}

func invalid(param, message string) *problem {
	return &problem{status: http.StatusBadRequest, Type: "invalid_request_error", Message: message, Param: param}
}

func (s *Server) serve(do func(*http.Request) (any, *problem)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		call := &Call{Began: time.Now(), Path: r.URL.Path, Query: r.URL.Query()}
		fault, wait, requestID := s.begin(call)
		if wait > 0 {
			time.Sleep(wait)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Request-Id", requestID)
		var body any
		var fail *problem
		switch fault {
		case HangUp:
			panic(http.ErrAbortHandler)
		case Garbage, Error503:
			status := http.StatusOK
			if fault == Error503 {
				status = http.StatusServiceUnavailable
				w.Header().Set("Content-Type", "text/html")
			}
			s.finish(call, status)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "<html><body>Sorry.</body></html>\n")
			return
		case RateLimited:
			fail = &problem{http.StatusTooManyRequests, "invalid_request_error", "rate_limit", "request rate limit exceeded", ""}
		case Error500:
			fail = &problem{http.StatusInternalServerError, "api_error", "", "an unknown error occurred", ""}
		default:
			if fail = s.authenticate(r); fail == nil {
				body, fail = do(r)
			}
		}
		status := http.StatusOK
		if fail != nil {
			status, body = fail.status, map[string]*problem{"error": fail}
		}
		s.finish(call, status)
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body) // a caller that left is no concern of ours
	}
}

func (s *Server) begin(call *Call) (Fault, time.Duration, string) {
	if s.opt.Fault != nil {
		call.Fault = s.opt.Fault(*call)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != "" {
		call.Fault = s.fault
	}
	s.calls = append(s.calls, call)
	wait := s.opt.MinLatency
	if span := s.opt.MaxLatency - s.opt.MinLatency; span > 0 {
		wait += time.Duration(s.rng.Int64N(int64(span) + 1))
	}
	return call.Fault, wait, fmt.Sprintf("req_%014x", s.rng.Uint64()>>8)
}

func (s *Server) finish(call *Call, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	call.Status = status
}

// authenticate checks the key, and that the caller speaks the version that is stored.
func (s *Server) authenticate(r *http.Request) *problem {
	key, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || subtle.ConstantTimeCompare([]byte(key), []byte(s.opt.Key)) != 1 {
		return &problem{status: http.StatusUnauthorized, Type: "invalid_request_error", Message: "invalid API key provided"}
	}
	if v := r.Header.Get("Stripe-Version"); v != "" && v != string(V20231016) {
		return invalid("", "this stand-in speaks API version "+string(V20231016)+" only")
	}
	return nil
}

// retrieve gives an object; expand[] may name fields at its top that hold an id.
func (s *Server) retrieve(kind, id string, q url.Values) (any, *problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[id]
	if !ok || o["object"] != kind {
		return nil, &problem{http.StatusNotFound, "invalid_request_error", "resource_missing",
			fmt.Sprintf("no such %s: '%s'", kind, id), "id"}
	}
	out := map[string]any{}
	for k, v := range o {
		out[k] = v
	}
	for k, values := range q {
		if name, _, _ := strings.Cut(k, "["); name != "expand" {
			return nil, &problem{http.StatusBadRequest, "invalid_request_error", "parameter_unknown", "received unknown parameter: " + k, k}
		}
		for _, field := range values {
			ref, _ := o[field].(string)
			if ref == "" && o[field] == nil {
				continue
			}
			target, ok := s.objects[ref]
			if !ok {
				return nil, invalid("expand", "this property cannot be expanded: "+field)
			}
			out[field] = target
		}
	}
	return out, nil
}

var listParameters = regexp.MustCompile(`^(types?(\[[0-9]*\])?|created(\[(gt|gte|lt|lte)\])?|delivery_success|limit|starting_after|ending_before)$`)

// listEvents lists newest first. ending_before gives those just newer than an event,
// starting_after those just older.
func (s *Server) listEvents(q url.Values) (any, *problem) {
	limit := 10
	var types []string
	for k, v := range q {
		if !listParameters.MatchString(k) {
			return nil, &problem{http.StatusBadRequest, "invalid_request_error", "parameter_unknown", "received unknown parameter: " + k, k}
		}
		if strings.HasPrefix(k, "type") {
			types = append(types, v...)
		}
		if k == "limit" {
			n, err := strconv.Atoi(v[0])
			if err != nil || n < 1 || n > 100 {
				return nil, invalid("limit", "limit must be 1 to 100")
			}
			limit = n
		}
		if strings.HasPrefix(k, "created") {
			if _, err := strconv.ParseInt(v[0], 10, 64); err != nil {
				return nil, invalid("created", "created must be a Unix time")
			}
		}
	}
	if len(types) > 20 || q.Has("type") && len(types) > 1 {
		return nil, invalid("types", "give type, or at most 20 types")
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	ids := slices.Clone(s.events)
	slices.Reverse(ids) // of one second the later put comes first
	slices.SortStableFunc(ids, func(a, b string) int { return int(s.created(b) - s.created(a)) })
	for _, cursor := range []string{"starting_after", "ending_before"} {
		id := q.Get(cursor)
		if id == "" {
			continue
		}
		at := slices.Index(ids, id)
		if at < 0 {
			return nil, &problem{http.StatusBadRequest, "invalid_request_error", "resource_missing", "no such event: '" + id + "'", cursor}
		}
		if cursor == "starting_after" {
			ids = ids[at+1:]
		} else {
			ids = ids[:at]
		}
	}
	ids = slices.DeleteFunc(ids, func(id string) bool {
		wrong := q.Has("delivery_success") && q.Get("delivery_success") != strconv.FormatBool(s.delivered[id])
		return wrong || !typeMatches(types, s.objects[id]["type"]) || !createdMatches(q, s.created(id))
	})
	more := len(ids) > limit
	if more && q.Has("ending_before") {
		ids = ids[len(ids)-limit:]
	} else if more {
		ids = ids[:limit]
	}
	data := make([]any, len(ids))
	for i, id := range ids {
		data[i] = s.objects[id]
	}
	return map[string]any{"object": "list", "url": "/v1/events", "has_more": more, "data": data}, nil
}

// created is an event's time. The caller holds s.mu.
func (s *Server) created(id string) int64 {
	n, _ := s.objects[id]["created"].(json.Number)
	t, _ := n.Int64()
	return t
}

// typeMatches says whether a type is wanted; "customer.subscription.*" wants a group.
func typeMatches(wanted []string, is any) bool {
	name, _ := is.(string)
	return len(wanted) == 0 || slices.ContainsFunc(wanted, func(w string) bool {
		group, wild := strings.CutSuffix(w, "*")
		return w == name || wild && strings.HasPrefix(name, group)
	})
}

func createdMatches(q url.Values, at int64) bool {
	for k, holds := range map[string]func(bound int64) bool{
		"created":      func(b int64) bool { return at == b },
		"created[gt]":  func(b int64) bool { return at > b },
		"created[gte]": func(b int64) bool { return at >= b },
		"created[lt]":  func(b int64) bool { return at < b },
		"created[lte]": func(b int64) bool { return at <= b },
	} {
		if q.Has(k) {
			if b, _ := strconv.ParseInt(q.Get(k), 10, 64); !holds(b) {
				return false
			}
		}
	}
	return true
}
