// Rooms with connection state recovery: join a room, send a message to one. socketio.js PORT
'use strict';
const { Server } = require('socket.io');

const io = new Server({
  transports: ['websocket'],
  serveClient: false,
  connectionStateRecovery: { maxDisconnectionDuration: 2 * 60 * 1000 },
});

io.on('connection', (socket) => {
  socket.on('join', (room, done) => {
    socket.join(room);
    done();
  });
  socket.on('m', (room, data, done) => {
    io.to(room).emit('m', data);
    done();
  });
});
require('http')
  .createServer()
  .listen(Number(process.argv[2]), '127.0.0.1', function listening() {
    io.attach(this);
  });
