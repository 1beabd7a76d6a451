// AXI4 memory for whole-word incrementing bursts: one read and one write at a time. Words in capitals
// that name a size are replaced by numbers.
module memory (
  input wire clk, input wire rst,
  input wire [ID_BITS-1:0] awid, input wire [ADDRESS_BITS-1:0] awaddr, input wire [7:0] awlen,
  input wire [2:0] awsize, input wire [1:0] awburst, input wire awvalid, output wire awready,
  input wire [8*WORD_BYTES-1:0] wdata, input wire [WORD_BYTES-1:0] wstrb, input wire wlast,
  input wire wvalid, output wire wready,
  output reg [ID_BITS-1:0] bid, output wire [1:0] bresp, output reg bvalid, input wire bready,
  input wire [ID_BITS-1:0] arid, input wire [ADDRESS_BITS-1:0] araddr, input wire [7:0] arlen,
  input wire [2:0] arsize, input wire [1:0] arburst, input wire arvalid, output wire arready,
  output reg [ID_BITS-1:0] rid, output wire [8*WORD_BYTES-1:0] rdata, output wire [1:0] rresp,
  output wire rlast, output reg rvalid, input wire rready
);
  reg [8*WORD_BYTES-1:0] words [0:WORDS-1];
  reg [ADDRESS_BITS-1:0] read_word, write_word;
  reg [7:0] reads_left;
  reg writing;
  integer i;

  assign bresp = 0;
  assign rresp = 0;
  assign awready = !writing && !bvalid;
  assign wready = writing;
  assign arready = !rvalid;
  assign rdata = words[read_word];
  assign rlast = reads_left == 0;

  always @(posedge clk) begin
    if (rst) begin
      writing <= 0;
      bvalid <= 0;
      rvalid <= 0;
    end else begin
      if (awvalid && awready) begin
        writing <= 1;
        bid <= awid;
        write_word <= awaddr / WORD_BYTES;
      end
      if (wvalid && wready) begin
        for (i = 0; i < WORD_BYTES; i = i + 1)
          if (wstrb[i]) words[write_word][8*i +: 8] <= wdata[8*i +: 8];
        write_word <= write_word + 1;
        if (wlast) begin
          writing <= 0;
          bvalid <= 1;
        end
      end
      if (bvalid && bready) bvalid <= 0;
      if (arvalid && arready) begin
        rvalid <= 1;
        rid <= arid;
        read_word <= araddr / WORD_BYTES;
        reads_left <= arlen;
      end
      if (rvalid && rready) begin
        read_word <= read_word + 1;
        reads_left <= reads_left - 1;
        if (rlast) rvalid <= 0;
      end
    end
  end
endmodule
