// Package google is a stand-in for the part of Google Sheets v4 that a writer needs,
// and for the endpoint that gives a service account its access tokens. It holds
// spreadsheets in memory, speaks the wire format of google.golang.org/api/sheets/v4,
// is as strict as Google about ranges, grids, options and quotas, and fails on demand.
// What a person does to the spreadsheet meanwhile is a set of Go methods.
//
// Where Google's documentation leaves something open the stricter reading is taken: quotas count
// any 60 seconds rather than each minute of a clock, and nothing but append lets
// a grid grow by itself.
package google

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	api "google.golang.org/api/sheets/v4"
)

// Limits of one request. Google publishes no size, and recommends 2 MB at most; other
// Google APIs end at 10 MiB. The length of an address is not documented at all.
const (
	maxBody    = 10 << 20
	maxAddress = 16 << 10
)

// Unlimited, as a quota, is none.
const Unlimited = -1

// Options say how the stand-in behaves. Spreadsheets is needed.
type Options struct {
	// Spreadsheets are the ids of those that exist and are shared with the service
	// account. Each begins with one empty tab, Sheet1. The methods that act as a
	// person act on the first.
	Spreadsheets []string
	// NotShared are the ids of spreadsheets that exist and answer 403.
	NotShared []string
	// ReadOnly are the ids of those that are shared for reading: writes answer 403.
	ReadOnly []string

	// ReadsPerMinute and WritesPerMinute are the calls allowed in any 60 s: 0 is 60 as
	// at Google, Unlimited none. Refused calls do not count.
	ReadsPerMinute, WritesPerMinute int
	// RetryAfter is sent with a 429, in seconds, when it is not 0. Google sends none.
	RetryAfter time.Duration
	// Now is the clock of the quotas. Default time.Now, which tokens always go by,
	// since the client library takes no other clock.
	Now func() time.Time
	// TokenTTL is how long an access token is good for. Default one hour.
	TokenTTL time.Duration

	// TimeZone is the spreadsheets'. Default Europe/Paris.
	TimeZone string

	MinLatency, MaxLatency time.Duration
	// Latency, where it is set, says how long a call of a method takes, in place of those.
	Latency func(method string) time.Duration
	// Fault picks a fault for the n-th call of a method, such as "values.batchUpdate",
	// counted from 1; "" is none. FailNext and SetFault outweigh it.
	Fault func(method string, n int) Fault
	// BeforeEach and AfterEach run in the middle of each call: when it has been
	// checked and is about to be carried out, and when it has been carried out and
	// is about to be answered. They may use every method of Server.
	BeforeEach, AfterEach func(method string)
	// Seed makes latencies and new ids repeatable; 0 takes a random one.
	Seed uint64
}

// A Fault is a way for a call to go wrong. "After" faults happen to a call that has been
// carried out, all others leave nothing behind.
//
// Go's transport repeats a GET by itself, once, when a connection that it kept open
// closes without an answer; a POST or PUT it does not.
type Fault string

// The faults.
const (
	TooManyRequests Fault = "too_many_requests" // 429, as when a quota is used up
	Internal        Fault = "internal"          // 500
	Unavailable     Fault = "unavailable"       // 503
	BadGateway      Fault = "bad_gateway"       // 502 with a page of HTML
	DropBefore      Fault = "drop_before"       // the connection closes
	DropAfter       Fault = "drop_after"        // carried out, then the connection closes
	TimeoutAfter    Fault = "timeout_after"     // carried out, then 504
)

// A Call is one request to the API; those for tokens are not among them.
type Call struct {
	Began  time.Time // by Options.Now
	Method string    // as Google names it, e.g. "values.batchUpdate"; "" is unknown
	Bytes  int       // of the request's body
	Status int       // the HTTP status answered; 0: none yet, or the connection was closed
	Fault  Fault
}

// Stats are counts since the start.
type Stats struct {
	Reads, Writes   int // calls that the quotas let through
	QuotaViolations int // calls answered 429 by a quota, not by a fault
	Tokens          int // access tokens given out
}

// A Server is the stand-in, an http.Handler. It is safe for concurrent use and starts
// no goroutine.
type Server struct {
	opt     Options
	account account

	mu            sync.Mutex
	rng           *rand.Rand
	books         map[string]*book
	tokens        map[string]token
	reads, writes []time.Time // of the last 60 s, let through
	ordinal       map[string]int
	next          []Fault
	fault         Fault
	calls         []*Call
	stats         Stats
}

// New takes no address: serve the result with net/http. An error means that Options
// are unusable.
func New(opt Options) (*Server, error) {
	if len(opt.Spreadsheets) == 0 || slices.Contains(opt.Spreadsheets, "") {
		return nil, errors.New("google stand-in: the id of a spreadsheet must be given")
	}
	if opt.MaxLatency < opt.MinLatency {
		return nil, errors.New("google stand-in: latency ends before it begins")
	}
	if opt.Seed == 0 {
		opt.Seed = rand.Uint64()
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	opt.ReadsPerMinute = cmp.Or(opt.ReadsPerMinute, 60)
	opt.WritesPerMinute = cmp.Or(opt.WritesPerMinute, 60)
	opt.TokenTTL = cmp.Or(opt.TokenTTL, time.Hour)
	opt.TimeZone = cmp.Or(opt.TimeZone, "Europe/Paris")
	s := &Server{opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, 0)),
		books: map[string]*book{}, tokens: map[string]token{}, ordinal: map[string]int{}}
	for _, id := range opt.Spreadsheets {
		s.books[id] = &book{id: id, zone: opt.TimeZone, sheets: []*grid{{title: "Sheet1", rows: defaultRows, cols: defaultColumns}}}
	}
	return s, nil
}

// SetFault makes every call from now on meet a fault; "" ends it.
func (s *Server) SetFault(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// FailNext makes the next n calls meet a fault, after those that earlier calls of
// FailNext have left.
func (s *Server) FailNext(f Fault, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = append(s.next, slices.Repeat([]Fault{f}, n)...)
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

// Stats are the counts so far.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// random is a positive number below n. mu is held.
func (s *Server) random(n int64) int64 { return 1 + s.rng.Int64N(n-1) }

// A request is a call that has been understood.
type request struct {
	server *Server
	arg    string // the range of the address, where it has one
	query  url.Values
	body   []byte
}

// An apply carries a call out and gives its answer. mu is held. Where it fails it has
// changed nothing.
type apply func(b *book) (any, error)

// A method is one of the API's. Its prepare checks all that can be checked without
// looking at the spreadsheet, as Google does before it looks.
type method struct {
	name    string
	verb    string // HTTP's
	write   bool   // which of the quotas it takes from
	params  string // names of its query parameters
	prepare func(request) (apply, error)
	reply   any // of the type of its answer
}

const readParams = " majorDimension valueRenderOption dateTimeRenderOption "

// methods by what follows the spreadsheet's id in the address; "*" stands for a range.
var methods = map[string][]method{
	"":             {{"spreadsheets.get", "GET", false, " includeGridData ", prepareSpreadsheet, api.Spreadsheet{}}},
	":batchUpdate": {{"spreadsheets.batchUpdate", "POST", true, "", prepareStructure, api.BatchUpdateSpreadsheetResponse{}}},
	"/values/*": {{"values.get", "GET", false, readParams, prepareGet, api.ValueRange{}},
		{"values.update", "PUT", true, " valueInputOption ", prepareUpdate, api.UpdateValuesResponse{}}},
	"/values/*:append":          {{"values.append", "POST", true, " valueInputOption insertDataOption ", prepareAppend, api.AppendValuesResponse{}}},
	"/values/*:clear":           {{"values.clear", "POST", true, "", prepareClear, api.ClearValuesResponse{}}},
	"/values:batchGet":          {{"values.batchGet", "GET", false, " ranges " + readParams, prepareBatchGet, api.BatchGetValuesResponse{}}},
	"/values:batchUpdate":       {{"values.batchUpdate", "POST", true, "", prepareBatchUpdate, api.BatchUpdateValuesResponse{}}},
	"/values:batchClear":        {{"values.batchClear", "POST", true, "", prepareBatchClear, api.BatchClearValuesResponse{}}},
	"/developerMetadata:search": {{"developerMetadata.search", "POST", false, "", prepareSearch, api.SearchDeveloperMetadataResponse{}}},
}

// systemParams are query parameters that every method takes.
const systemParams = " alt fields prettyPrint key quotaUser "

// route finds the method, the spreadsheet and the range that an address names. It works
// on the escaped path: a title may hold an escaped slash or colon.
func route(r *http.Request) (m method, id, arg string, ok bool) {
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), "/v4/spreadsheets/")
	if !ok {
		return m, "", "", false
	}
	end := strings.IndexAny(rest, ":/")
	if end < 0 {
		end = len(rest)
	}
	id, rest = rest[:end], rest[end:]
	if name, ok := strings.CutPrefix(rest, "/values/"); ok {
		suffix := ""
		if r.Method == http.MethodPost {
			if i := strings.LastIndexByte(name, ':'); i >= 0 {
				name, suffix = name[:i], name[i:]
			}
		}
		arg, rest = name, "/values/*"+suffix
	}
	arg, argErr := url.PathUnescape(arg)
	id, idErr := url.PathUnescape(id)
	i := slices.IndexFunc(methods[rest], func(m method) bool { return m.verb == r.Method })
	if i < 0 || argErr != nil || idErr != nil || id == "" || strings.Contains(rest, "*") && arg == "" {
		return m, "", "", false
	}
	return methods[rest][i], id, arg, true
}

// ServeHTTP answers POST /token, and the methods of the API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == tokenPath {
		s.serveToken(w, r)
		return
	}
	m, id, arg, known := route(r)
	call, fault := s.begin(m.name)
	if s.opt.MaxLatency > 0 || s.opt.Latency != nil {
		s.wait(r, m.name)
	}
	if fault == DropBefore {
		panic(http.ErrAbortHandler)
	}
	if fault == BadGateway {
		s.finish(call, http.StatusBadGateway, 0)
		w.Header().Set("Content-Type", "text/html; charset=UTF-8")
		w.WriteHeader(http.StatusBadGateway)
		fmt.Fprint(w, "<!DOCTYPE html><html><title>Error 502 (Server Error)!!1</title></html>\n")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	if err != nil && !errors.As(err, &tooLarge) {
		panic(http.ErrAbortHandler) // the caller left in the middle
	}
	var answer []byte
	switch {
	case len(r.RequestURI) > maxAddress:
		err = &problem{Code: http.StatusRequestURITooLong, Message: "The requested URL is too large to process.", Status: "INVALID_ARGUMENT"}
	case !known:
		err = &problem{Code: http.StatusNotFound, Message: "Requested entity was not found.", Status: "NOT_FOUND"}
	case tooLarge != nil:
		err = bad("Request payload size exceeds the limit: %d bytes.", maxBody)
	default:
		answer, err = s.answer(m, id, request{server: s, arg: arg, query: r.URL.Query(), body: body}, r.Header.Get("Authorization"), fault)
	}
	if fault == DropAfter && err == nil {
		s.finish(call, 0, len(body))
		panic(http.ErrAbortHandler)
	}
	if fault == TimeoutAfter && err == nil {
		err = &problem{Code: http.StatusGatewayTimeout, Message: "Deadline expired before operation could complete.", Status: "DEADLINE_EXCEEDED"}
	}
	status := http.StatusOK
	if err != nil {
		var p *problem
		if !errors.As(err, &p) {
			p = &problem{Code: http.StatusInternalServerError, Message: err.Error(), Status: "INTERNAL"}
		}
		status = p.Code
		answer, err = json.Marshal(map[string]*problem{"error": p})
		if err != nil {
			panic(err) // strings and numbers
		}
		if status == http.StatusTooManyRequests && s.opt.RetryAfter > 0 {
			w.Header().Set("Retry-After", fmt.Sprint(int(s.opt.RetryAfter.Seconds())))
		}
		if status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Bearer realm="https://accounts.google.com/", error="invalid_token"`)
		}
	}
	s.finish(call, status, len(body))
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	_, _ = w.Write(answer) // a caller that left is no concern of ours
}

// answer is a known method's way: token, quota, faults, checks, and the spreadsheet.
func (s *Server) answer(m method, id string, r request, authorization string, fault Fault) ([]byte, error) {
	if err := s.authorize(authorization); err != nil {
		return nil, err
	}
	if fault == TooManyRequests {
		return nil, exhausted(m.write)
	}
	if err := s.spend(m.write); err != nil {
		return nil, err
	}
	switch fault {
	case Internal:
		return nil, &problem{Code: http.StatusInternalServerError, Message: "Internal error encountered.", Status: "INTERNAL"}
	case Unavailable:
		return nil, &problem{Code: http.StatusServiceUnavailable, Message: "The service is currently unavailable.", Status: "UNAVAILABLE"}
	}
	for name := range r.query {
		if !strings.Contains(m.params+systemParams, " "+name+" ") {
			return nil, bad("Invalid JSON payload received. Unknown name %q: Cannot bind query parameter. Field '%[1]s' could not be found in request message.", name)
		}
	}
	fields, err := parseMask(r.query.Get("fields"))
	if err == nil {
		err = fields.check(reflect.TypeOf(m.reply), "")
	}
	if err != nil {
		return nil, err
	}
	do, err := m.prepare(r)
	if err != nil {
		return nil, err
	}
	if s.opt.BeforeEach != nil {
		s.opt.BeforeEach(m.name)
	}
	v, err := s.carryOut(id, m.write, do)
	if s.opt.AfterEach != nil {
		s.opt.AfterEach(m.name)
	}
	if err != nil {
		return nil, err
	}
	out, err := json.Marshal(v)
	if err != nil || len(fields) == 0 {
		return out, err
	}
	var all any
	decoder := json.NewDecoder(bytes.NewReader(out))
	decoder.UseNumber()
	if err := decoder.Decode(&all); err != nil {
		return nil, err
	}
	return json.Marshal(fields.keep(all))
}

func (s *Server) carryOut(id string, write bool, do apply) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.opt.NotShared, id) || write && slices.Contains(s.opt.ReadOnly, id) {
		return nil, &problem{Code: http.StatusForbidden, Message: "The caller does not have permission", Status: "PERMISSION_DENIED"}
	}
	b := s.books[id]
	if b == nil {
		return nil, &problem{Code: http.StatusNotFound, Message: "Requested entity was not found.", Status: "NOT_FOUND"}
	}
	return do(b)
}

func (s *Server) begin(method string) (*Call, Fault) {
	s.mu.Lock()
	s.ordinal[method]++
	n := s.ordinal[method]
	call := &Call{Began: s.opt.Now(), Method: method}
	s.calls = append(s.calls, call)
	call.Fault = s.fault
	if call.Fault == "" && len(s.next) > 0 {
		call.Fault, s.next = s.next[0], s.next[1:]
	}
	fault := call.Fault
	s.mu.Unlock()
	if fault == "" && s.opt.Fault != nil {
		fault = s.opt.Fault(method, n) // without the lock: it may use the Server
		s.mu.Lock()
		call.Fault = fault
		s.mu.Unlock()
	}
	return call, fault
}

func (s *Server) finish(call *Call, status, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	call.Status, call.Bytes = status, bytes
}

// wait takes the time that Google takes. A caller who leaves meanwhile is not noticed:
// the call is carried out, as it would be at Google.
func (s *Server) wait(r *http.Request, method string) {
	s.mu.Lock()
	d := s.opt.MinLatency + time.Duration(s.rng.Int64N(int64(s.opt.MaxLatency-s.opt.MinLatency)+1))
	s.mu.Unlock()
	if s.opt.Latency != nil {
		d = s.opt.Latency(method)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	}
}

// spend takes a call from its quota, which no 60 seconds may exceed.
func (s *Server) spend(write bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	spent, limit, count := &s.reads, s.opt.ReadsPerMinute, &s.stats.Reads
	if write {
		spent, limit, count = &s.writes, s.opt.WritesPerMinute, &s.stats.Writes
	}
	now := s.opt.Now()
	for len(*spent) > 0 && now.Sub((*spent)[0]) >= time.Minute {
		*spent = (*spent)[1:]
	}
	if limit != Unlimited {
		if len(*spent) >= limit {
			s.stats.QuotaViolations++
			return exhausted(write)
		}
		*spent = append(*spent, now)
	}
	*count++
	return nil
}

// A problem is an error as Google writes it.
type problem struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Status  string `json:"status"`
	Details []any  `json:"details,omitempty"`
}

func (p *problem) Error() string { return p.Message }

func bad(format string, args ...any) error {
	return &problem{Code: http.StatusBadRequest, Message: fmt.Sprintf(format, args...), Status: "INVALID_ARGUMENT"}
}

func badEnum(field, value string) error {
	return bad("Invalid value at '%s' (type.googleapis.com enum), %q", field, value)
}

func oneOf(field, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return badEnum(field, value)
}

func unknownName(name, at string) error {
	return bad("Invalid JSON payload received. Unknown name %q at '%s': Cannot find field.", name, at)
}

func exhausted(write bool) error {
	kind := "Read"
	if write {
		kind = "Write"
	}
	return &problem{Code: http.StatusTooManyRequests, Status: "RESOURCE_EXHAUSTED",
		Message: fmt.Sprintf("Quota exceeded for quota metric '%[1]s requests' and limit '%[1]s requests per minute per user' of service 'sheets.googleapis.com' for consumer 'project_number:%[2]s'.", kind, project),
		Details: []any{map[string]any{
			"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED", "domain": "googleapis.com",
			"metadata": map[string]string{"service": "sheets.googleapis.com", "consumer": "projects/" + project,
				"quota_limit": kind + "RequestsPerMinutePerUser", "quota_location": "global"},
		}}}
}

// decode reads a body, an empty one as {}, and refuses what the message does not have.
func decode(body []byte, v any) error {
	if len(body) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return bad("Invalid JSON payload received. %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return bad("Invalid JSON payload received. Unexpected token.")
	}
	return nil
}
